"""One frozen settings object, read from the environment at the edge and passed down as plain values.

Every variable begins with FLOWTRAIL_ and is listed in docs/settings.md (a test compares the two).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import InputError

PREFIX: Final = "FLOWTRAIL_"


class Settings(BaseModel):
    """Where the servers are and how this process behaves. Durations carry their unit in the name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, host:port[,host:port]")
    postgres: str = Field(
        "postgresql://flowtrail@127.0.0.1:5433/flowtrail", description="Postgres connection string"
    )
    topic_prefix: str = Field(
        "flowtrail.", pattern=r"^[a-zA-Z0-9._-]{0,64}$", description="prefix of every topic"
    )
    partitions: int = Field(8, ge=1, le=256, description="partitions of every topic, fixed at creation")
    replication: int = Field(1, ge=1, le=7, description="replicas of every topic")
    instance: str = Field(
        "e0", pattern=r"^[a-zA-Z0-9._-]{1,64}$", description="stable name of this engine process"
    )
    session_timeout_ms: int = Field(
        10_000, ge=2_000, description="how long a silent engine keeps its partitions"
    )
    commit_slots: int = Field(
        3, ge=1, le=256, description="transactions an engine commits at the same time at the most"
    )
    batch_records_max: int = Field(2000, ge=1, description="commands decided in one transaction at the most")
    ended_window_hours: float = Field(24, gt=0, description="how long an ended flow's id is remembered")
    event_ttl_seconds: float = Field(
        3600, gt=0, description="how long an event is kept for flows that begin to listen later"
    )
    watchdog_s: float = Field(
        30, gt=1, description="an assigned partition without progress this long ends the process"
    )
    expression_deadline_ms: int = Field(1000, ge=10, description="limit of an unbounded expression")
    expression_memory_mib: int = Field(256, ge=64, description="limit of an unbounded expression")
    http_rewrite: str = Field(
        "", description="what calls reach instead: https://a.example=http://127.0.0.1:1234[/path],..."
    )
    http_response_bytes_max: int = Field(
        262_144, ge=1024, description="size of the answer to a call at the most"
    )
    http_document_bytes_max: int = Field(
        4_194_304,
        ge=1024,
        description="size of a document that a call reads (OpenAPI, proto, ...) at the most",
    )
    http_connect_s: float = Field(10, gt=0, description="how long a call waits for a connection")
    http_read_s: float = Field(60, gt=0, description="how long a call waits for the next part of its answer")
    http_private_networks: str = Field(
        "allow",
        pattern=r"^(allow|deny)$",
        description="deny: calls reach no private, loopback or link-local address",
    )
    http_proxy: str = Field("", description="proxy that calls go through, http://host:port")
    files_dir: str = Field(
        "", description="folder below which calls read file: endpoints; empty: any file the executor can read"
    )
    catalogs: str = Field(
        "", description="folder of catalogs: functions and schemas that definitions name; empty: none"
    )
    executor_concurrency: int = Field(
        16, ge=1, le=1000, description="tasks that one queue of an executor performs at once"
    )
    run_shell: bool = Field(False, description="1: executors perform run.shell")
    run_script: bool = Field(False, description="1: executors perform run.script")
    run_container: bool = Field(False, description="1: executors perform run.container")
    run_wall_s: float = Field(
        60, gt=0, description="how long a process of run or an MCP server's command may take"
    )
    run_cpu_s: int = Field(30, ge=1, description="processor time of each process of run")
    run_memory_mib: int = Field(
        512, ge=16, description="address space of each process of run; memory of a container"
    )
    run_output_bytes_max: int = Field(
        262_144, ge=1024, description="what a process may write to stdout and stderr, each"
    )
    mcp_stdio: bool = Field(False, description="1: executors start MCP servers that calls name as commands")
    api_host: str = Field("127.0.0.1", description="address the API binds")
    api_port: int = Field(8080, ge=0, le=65535, description="port the API binds")
    api_url: str = Field("http://127.0.0.1:8080", description="where clients and workers find the API")
    api_key: str = Field("", description="API key that clients and workers send")
    api_pepper: str = Field(
        "", description="secret behind the stored API keys; empty: the file pepper in `data`"
    )
    worker_kafka: str = Field(
        "", description="Kafka bootstrap servers the API tells workers; empty: the same as `kafka`"
    )
    metrics_host: str = Field(
        "127.0.0.1", description="address of /metrics of engine, projections and worker"
    )
    metrics_port: int = Field(0, ge=0, le=65535, description="port of /metrics; 0 opens none")
    data: str = Field(".flowtrail", description="directory of the embedded servers' data and of the API key")
    log_level: str = Field(
        "info", pattern=r"^(debug|info|warning|error)$", description="least level that is logged"
    )


def read_settings(environment: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """Settings from `environment`; `given` values that are not None win. Raises InputError naming the variable."""
    values: dict[str, object] = {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if environment.get(PREFIX + name.upper(), "") != ""
    }
    values.update({name: value for name, value in given.items() if value is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise InputError(
            f"Expected {name} to be valid but {first['msg']} (found {first['input']!r})"
        ) from None
