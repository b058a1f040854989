"""The compose stack cannot be run without a Docker engine, so it is held to the code instead."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cli.main import NOUNS
from engine.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "prometheus.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def command_words(service: dict[str, Any]) -> list[str]:
    if "entrypoint" in service:
        found = re.search(r"flowtrail (.*)", service["entrypoint"][-1])
        assert found is not None
        return found[1].split()
    return list(service["command"])


def container_port(published: str) -> int:
    return int(published.rsplit(":", 1)[1])


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_runs_a_command_that_exists(name: str) -> None:
    noun, verb, *options = command_words(OURS[name])
    module, attribute = NOUNS[noun][:2]
    group = typer.main.get_command(getattr(importlib.import_module(module), attribute))
    command = group.commands[verb]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in options if word.startswith("--")} <= known


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_of_a_service_is_a_setting(name: str) -> None:
    for variable, value in OURS[name]["environment"].items():
        field = variable.removeprefix(PREFIX).lower()
        assert variable.startswith(PREFIX)
        assert field in Settings.model_fields, variable
        Settings.model_validate({field: str(value)})


def test_the_servers_are_addressed_by_the_ports_they_listen_on() -> None:
    services = COMPOSE["services"]
    listeners = services["kafka"]["environment"]["KAFKA_LISTENERS"]
    host, port = services["engine"]["environment"]["FLOWTRAIL_KAFKA"].split(":")
    assert host in services
    assert f"INTERNAL://:{port}" in listeners
    postgres = services["engine"]["environment"]["FLOWTRAIL_POSTGRES"]
    settings = services["postgres"]["environment"]
    assert postgres == (
        f"postgresql://{settings['POSTGRES_USER']}:{settings['POSTGRES_PASSWORD']}@postgres:5432/{settings['POSTGRES_DB']}"
    )


def test_published_ports_are_the_defaults_of_the_settings() -> None:
    services = COMPOSE["services"]
    assert services["api"]["ports"] == [f"127.0.0.1:{Settings.model_fields['api_port'].default}:8080"]
    assert services["kafka"]["ports"] == [f"{Settings.model_fields['kafka'].default}:9092"]
    assert f":{services['postgres']['ports'][0].split(':')[1]}/" in str(
        Settings.model_fields["postgres"].default
    )


def test_prometheus_scrapes_every_process_on_its_metrics_port() -> None:
    targets: dict[str, int] = {}
    for job in PROMETHEUS["scrape_configs"]:
        for found in job.get("dns_sd_configs", ()):
            targets[found["names"][0]] = found["port"]
        for found in job.get("static_configs", ()):
            host, port = found["targets"][0].split(":")
            targets[host] = int(port)
    for name, port in targets.items():
        environment = OURS[name]["environment"]
        assert port == environment.get("FLOWTRAIL_METRICS_PORT", environment.get("FLOWTRAIL_API_PORT"))
    assert set(targets) == {"engine", "projections", "executor", "api"}


def test_the_engine_can_be_scaled() -> None:
    engine = COMPOSE["services"]["engine"]
    assert "container_name" not in engine
    assert "ports" not in engine
    assert "hostname" in engine["entrypoint"][-1]


def test_the_image_runs_the_entry_point_the_project_declares() -> None:
    docker = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["flowtrail"]' in docker
    for copied in re.findall(r"^COPY (?!--from)(\S+)", docker, re.MULTILINE):
        assert (ROOT / copied).exists()


def test_the_containers_of_the_tests_are_those_of_the_compose_stack() -> None:
    from tests.containers import image, kafka_environment

    assert image("kafka") == COMPOSE["services"]["kafka"]["image"]
    assert image("postgres").startswith("postgres:")
    found = kafka_environment(12345)
    assert "EXTERNAL://127.0.0.1:12345" in found["KAFKA_ADVERTISED_LISTENERS"]
    assert set(found) == set(COMPOSE["services"]["kafka"]["environment"])


def test_the_embedded_stack_runs_the_same_versions() -> None:
    lock = (ROOT / "stack/kafka_jars.lock").read_text()
    version = COMPOSE["services"]["kafka"]["image"].split(":")[1]
    assert f"kafka_2.13-{version}" in lock or f"kafka_2.13:{version}" in lock
