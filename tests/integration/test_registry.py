"""Confluent's stock clients against the live API: everything in the log is read, and a start is written, with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas import messages as m
from schemas.codec import decode_command
from schemas.registry import newest, released
from tests.conftest import Servers
from tests.integration.api_process import PARTITIONS, Installed, installation, until


@pytest.fixture(scope="module")
def installed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installation(servers, tmp_path_factory.mktemp("installed")) as made:
        yield made


@pytest.fixture
def client(installed: Installed) -> SchemaRegistryClient:
    key_id, _, secret = installed.key.partition(".")
    return SchemaRegistryClient(
        {"url": f"{installed.url}/registry", "basic.auth.user.info": f"{key_id}:{secret}"}
    )


def raw(installed: Installed, topic: str) -> list[Any]:
    """Every committed record of a topic, by a plain consumer."""
    consumer = Consumer(
        {
            "bootstrap.servers": installed.kafka,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.assign([TopicPartition(installed.prefix + topic, p, 0) for p in range(PARTITIONS)])
    found, open_ends = [], PARTITIONS
    while open_ends:
        message = consumer.poll(20)
        assert message is not None, "Kafka is silent"
        problem = message.error()
        if problem is None:
            found.append(message)
        else:
            assert problem.code() == KafkaError._PARTITION_EOF
            open_ends -= 1
    consumer.close()
    return found


def start_command(flow_id: str, **given: Any) -> dict[str, Any]:
    return {
        "command_id": f"{flow_id}-start",
        "flow_id": flow_id,
        "time": 1,
        "actor": {"kind": "user", "id": "upstream"},
        "trace": None,
        "body": {"definition": "shop/order", "input": {"json": b'{"amount": 21}'}} | given,
    }


def send(
    installed: Installed, client: SchemaRegistryClient, flow_id: str, serializer: AvroSerializer
) -> bytes:
    topic = f"{installed.prefix}commands"
    value = serializer(start_command(flow_id), SerializationContext(topic, MessageField.VALUE))
    assert isinstance(value, bytes)
    producer = Producer({"bootstrap.servers": installed.kafka, "partitioner": "murmur2_random"})
    producer.produce(topic, value, flow_id)
    assert producer.flush(10) == 0
    return value


def test_a_stock_serializer_starts_a_flow_straight_on_kafka(
    installed: Installed, client: SchemaRegistryClient
) -> None:
    serializer = AvroSerializer(client, conf={"auto.register.schemas": False, "use.latest.version": True})
    value = send(installed, client, "upstream-1", serializer)
    command = decode_command(value)
    assert command.body == m.StartFlow("shop/order", b'{"amount": 21}')
    with installed.client() as http:
        answer = http.get("/flows/upstream-1?wait=completed&timeout=25")
    flow = answer.json()
    assert answer.status_code == 200, answer.text + installed.logs()
    assert (flow["status"], flow["output"]) == ("completed", {"amount": 42})
    assert flow["started_by"] == {"kind": "user", "id": "upstream"}


def test_a_serializer_with_a_schema_of_its_own_looks_it_up(
    installed: Installed, client: SchemaRegistryClient
) -> None:
    text = newest("command").text
    for conf in ({"auto.register.schemas": False}, {"auto.register.schemas": True}):
        serializer = AvroSerializer(client, text, conf=conf)
        assert decode_command(send(installed, client, "upstream-2", serializer)).flow_id == "upstream-2"


def test_a_stock_deserializer_reads_every_event_and_every_rejection(
    installed: Installed, client: SchemaRegistryClient
) -> None:
    serializer = AvroSerializer(client, conf={"auto.register.schemas": False, "use.latest.version": True})
    send(installed, client, "read-me", serializer)
    other = AvroSerializer(
        client,
        conf={"auto.register.schemas": False, "use.latest.version": True},
        to_dict=lambda command, _: command | {"command_id": "another start of the same flow"},
    )
    send(installed, client, "read-me", other)
    with installed.client() as http:
        until(lambda: http.get("/rejections?flow_id=read-me").json()["rejections"], 30, "the rejection")
        events = http.get("/flows/read-me/history?wait=completed").status_code
        assert events == 422  # the history has no wait: a misspelt parameter is told
        flow = http.get("/flows/read-me?wait=completed").json()
    deserializer = AvroDeserializer(client)
    topic = f"{installed.prefix}events"
    found = [
        deserializer(message.value(), SerializationContext(topic, MessageField.VALUE))
        for message in raw(installed, "events")
    ]
    mine = [one for one in found if one["flow_id"] == "read-me"]
    events_read = [one for one in mine if "sequence" in one]
    assert [one["sequence"] for one in events_read] == list(range(1, flow["sequence"] + 1))
    assert [one["code"] for one in mine if "code" in one] == ["flow-exists"]
    assert events_read[0]["body"]["input"]["json"] == b'{"amount": 21}'


def test_every_topic_is_read_with_stock_clients(installed: Installed, client: SchemaRegistryClient) -> None:
    deserializer = AvroDeserializer(client)
    for topic, member in (("definitions", "definition"), ("commands", "command_id"), ("state", "body")):
        messages = raw(installed, topic)
        assert messages
        for message in messages:
            if message.value() is not None:
                context = SerializationContext(installed.prefix + topic, MessageField.VALUE)
                assert member in deserializer(message.value(), context)


def test_the_registry_client_finds_what_it_asks_for(
    installed: Installed, client: SchemaRegistryClient
) -> None:
    subjects = client.get_subjects()
    assert f"{installed.prefix}events-value" in subjects
    for schema in released():
        assert client.get_schema(schema.id).schema_str == schema.text
        latest, last = client.get_latest_version(schema.name), newest(schema.kind)
        assert (latest.schema_id, latest.version) == (last.id, last.version)
        assert client.get_version(schema.name, schema.version).schema_id == schema.id
        assert client.get_versions(schema.name) == list(range(1, last.version + 1))
        assert client.lookup_schema(schema.name, Schema(schema.text, "AVRO")).schema_id == schema.id
    assert client.get_compatibility() == "BACKWARD_TRANSITIVE"
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema("io.flowtrail.v1.Task", Schema('"string"', "AVRO"))
    assert (refused.value.http_status_code, refused.value.error_code) == (422, 42205)
    with pytest.raises(SchemaRegistryError) as missing:
        client.get_latest_version("nope")
    assert (missing.value.http_status_code, missing.value.error_code) == (404, 40401)


def test_without_a_key_the_registry_is_closed(installed: Installed) -> None:
    with pytest.raises(SchemaRegistryError) as closed:
        SchemaRegistryClient({"url": f"{installed.url}/registry"}).get_subjects()
    assert closed.value.http_status_code == 401
