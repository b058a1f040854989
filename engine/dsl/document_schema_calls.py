"""The part of the JSON Schema for editors that is about calls and runs: the form of each function's arguments.

Data only. The forms follow engine/dsl/protocols.py and the decision tables' reader; a test holds them together by
giving the same documents to both.
"""

from __future__ import annotations

from typing import Final

from engine.dsl.document_schema_parts import (
    EXPRESSION,
    Schema,
    choice,
    either,
    flag,
    listing,
    one_of_properties,
    record,
    ref,
    scalars,
    text,
    values,
)
from engine.dsl.protocols import PROCESSES, RETURNS
from engine.dsl.tables_cells import TYPES
from engine.dsl.tables_hits import AGGREGATORS, POLICIES

_SCALAR: Final = {"type": ["string", "number", "boolean"]}


def calls() -> dict[str, Schema]:
    """The `with` of each function that has a form of its own."""
    return {**_services(), "asyncapi": _asyncapi(), "mcp": _mcp(), "a2a": _a2a(), **_ours(), **_processes()}


def _services() -> dict[str, Schema]:
    shown = choice("What becomes the output.", ("raw", "content", "response"), default="content")
    redirect = flag("Whether redirections are results as well.", False)
    return {
        "http": record(
            "A request by HTTP.",
            {
                "method": text("GET, POST and so on."),
                "endpoint": ref("endpoint", "What is requested."),
                "headers": scalars("Headers of the request."),
                "body": {"description": "The request's content, as JSON."},
                "query": values("Query parameters."),
                "output": shown,
                "redirect": redirect,
            },
            ("method", "endpoint"),
        ),
        "openapi": record(
            "An operation of a service that an OpenAPI document describes.",
            {
                "document": ref("resource", "The OpenAPI document."),
                "operationId": text("Which operation."),
                "parameters": values("The operation's parameters and body, by name."),
                "authentication": ref("authentication"),
                "output": shown,
                "redirect": redirect,
            },
            ("document", "operationId"),
        ),
        "grpc": record(
            "A method of a gRPC service.",
            {
                "proto": ref("resource", "The .proto file."),
                "service": record(
                    "The service.",
                    {
                        "name": text("Its name in the .proto file."),
                        "host": text("Its host."),
                        "port": either(
                            "Its port.", {"type": "integer", "minimum": 0, "maximum": 65535}, EXPRESSION
                        ),
                        "authentication": ref("authentication"),
                    },
                    ("name", "host"),
                ),
                "method": text("Which method."),
                "arguments": values("Its message."),
            },
            ("proto", "service", "method"),
        ),
    }


def _a2a() -> Schema:
    return record(
        "A request to an agent.",
        {
            "method": text("Which method of the protocol."),
            "agentCard": ref("resource", "The agent's card."),
            "server": ref("endpoint", "The agent itself, when there is no card."),
            "parameters": either("The method's parameters.", {"type": "object"}, {"type": "string"}),
        },
        ("method",),
        anyOf=[{"required": ["agentCard"]}, {"required": ["server"]}],
    )


def _ours() -> dict[str, Schema]:
    """Beyond the specification."""
    return {
        "decision": record(
            "A decision table and the tables it depends on.",
            {**_table(), "tables": listing("Tables decided before, read as $decisions.NAME.", ref("table"))},
            ("outputs", "rules"),
        ),
        "table": record("A decision table.", _table(), ("name", "outputs", "rules")),
        "approval": record(
            "What a person is asked; whoever decides answers through the API.",
            {
                "title": text("What is to be decided."),
                "description": text("What helps to decide."),
                "assignees": either(
                    "Who may decide.", listing("Names.", {"type": "string"}), {"type": "string"}
                ),
                "form": {"type": ["object", "boolean"], "description": "A JSON Schema the answer must fit."},
                "due": text("A date to show; a timeout is what ends the task."),
                "data": {"description": "Whatever else to show."},
            },
        ),
    }


def _asyncapi() -> Schema:
    consume = {
        "amount": either("So many messages.", {"type": "integer", "minimum": 1}, EXPRESSION),
        "for": ref("duration", "At most this long."),
        "while": ref("program", "While this is true of the message."),
        "until": ref("program", "Until this is true of the message."),
    }
    subscription = record(
        "Which messages to take.",
        {
            "filter": ref("program", "Messages for which this is true."),
            "consume": record("How many.", consume, **one_of_properties("amount", "while", "until")),
            "foreach": ref("foreach", "What is done with each message."),
        },
        ("consume",),
    )
    return record(
        "Messages of a service that an AsyncAPI document describes.",
        {
            "document": ref("resource", "The AsyncAPI document."),
            "channel": text("Which channel; or give an operation."),
            "operation": text("Which operation."),
            "server": record(
                "Which of the document's servers.",
                {"name": text("Its name."), "variables": values("Its variables.")},
                ("name",),
            ),
            "protocol": text("The protocol, when the document offers several."),
            "message": record(
                "What to send.",
                {"payload": {"description": "Its content."}, "headers": values("Its headers.")},
            ),
            "subscription": subscription,
            "authentication": ref("authentication"),
        },
        ("document",),
        allOf=[one_of_properties("operation", "channel"), one_of_properties("message", "subscription")],
    )


def _mcp() -> Schema:
    transport = {
        "http": record(
            "A server behind a URI.",
            {"endpoint": ref("endpoint"), "headers": scalars("Headers.")},
            ("endpoint",),
        ),
        "stdio": record(
            "A program to start.",
            {
                "command": text("The program."),
                "arguments": either("Its arguments.", listing("In order.", _SCALAR), EXPRESSION),
                "environment": scalars("Its environment variables."),
            },
            ("command",),
        ),
        "options": scalars("Settings of the transport."),
    }
    return record(
        "A request to a server of the Model Context Protocol.",
        {
            "protocolVersion": text("The protocol's version."),
            "method": text("Which method, such as tools/call."),
            "parameters": either("The method's parameters.", {"type": "object"}, {"type": "string"}),
            "timeout": ref("duration", "How long the answer may take."),
            "transport": record("How to reach the server.", transport, **one_of_properties("http", "stdio")),
            "client": record(
                "What we call ourselves.",
                {"name": text("A name."), "version": text("A version.")},
                ("name", "version"),
            ),
        },
        ("method", "transport"),
    )


def _table() -> dict[str, Schema]:
    name = text("A name.", pattern="^[A-Za-z_][A-Za-z0-9_-]{0,63}$")
    kind = {"enum": list(TYPES), "description": "What its values are.", "default": "any"}
    cells = either("A cell for each column.", {"type": "array"}, {"type": "object"})
    return {
        "name": {**name, "description": "Of the table; default: the task's name."},
        "hitPolicy": {
            "enum": list(POLICIES),
            "default": "unique",
            "description": "What happens when several rules match.",
        },
        "aggregator": {
            "enum": list(AGGREGATORS),
            "default": "list",
            "description": "With collect: how the outputs of all matching rules are put together.",
        },
        "inputs": listing(
            "What is looked at: the columns of conditions.",
            record(
                "A column.",
                {
                    "name": name,
                    "expression": ref("program", "Its value, from the task's input."),
                    "type": kind,
                },
                ("name",),
            ),
            maxItems=64,
        ),
        "outputs": listing(
            "What is decided: the columns of results.",
            record(
                "A column.",
                {
                    "name": name,
                    "type": kind,
                    "values": {
                        "type": "array",
                        "description": "All values allowed, the most important first.",
                    },
                    "default": {"description": "When no rule matches."},
                },
                ("name",),
            ),
            minItems=1,
            maxItems=64,
        ),
        "rules": listing(
            "The rows.",
            record(
                "A row.",
                {
                    "name": text("What the explanation calls it."),
                    "when": {**cells, "description": "The conditions, one for each input."},
                    "then": {**cells, "description": "The results, one for each output."},
                },
                ("then",),
            ),
            minItems=1,
            maxItems=1000,
        ),
        "requires": listing(
            "Tables decided before this one: names, or tables.",
            either("A table.", {"type": "string"}, ref("table")),
        ),
    }


def _container(plain: dict[str, Schema]) -> Schema:
    return record(
        "A container.",
        {
            "image": text("The image."),
            "name": text("The container's name."),
            "command": text("What it runs."),
            "ports": values("Ports of the host, by those of the container."),
            "volumes": values("Folders of the container, by those of the host."),
            **plain,
            "lifetime": record(
                "What becomes of it afterwards.",
                {
                    "cleanup": choice("When it is removed.", ("always", "never", "eventually")),
                    "after": ref("duration", "With eventually: how long after it ended."),
                },
                ("cleanup",),
            ),
            "pullPolicy": choice("When the image is fetched.", ("ifNotPresent", "always", "never")),
        },
        ("image",),
    )


def _processes() -> dict[str, Schema]:
    arguments = either("Arguments: in order, or by name.", listing("In order.", _SCALAR), scalars("By name."))
    plain = {
        "stdin": text("What the program reads."),
        "arguments": arguments,
        "environment": scalars("Environment variables."),
    }
    shell = record("A command of the shell.", {"command": text("The command."), **plain}, ("command",))
    script = record(
        "A script.",
        {
            "language": choice("The script's language.", ("js", "javascript", "python")),
            "code": text("The script itself."),
            "source": ref("resource", "Where the script is."),
            **plain,
        },
        ("language",),
        **one_of_properties("code", "source"),
    )
    container = _container(plain)
    workflow = record(
        "Another definition, started as a flow of its own.",
        {
            "namespace": ref("label", "Its namespace."),
            "name": ref("label", "Its name."),
            "version": text("Its version, or latest.", default="latest"),
            "input": {"description": "The flow's input."},
        },
        ("namespace", "name"),
    )
    kinds = {"container": container, "script": script, "shell": shell, "workflow": workflow}
    assert set(kinds) == {*PROCESSES, "workflow"}
    return {
        "process": record(
            "What is run.",
            {
                **kinds,
                "await": {
                    "type": "boolean",
                    "default": True,
                    "description": "Whether the flow waits for its end.",
                },
                "return": {
                    "enum": list(RETURNS),
                    "default": "stdout",
                    "description": "What of it becomes the output.",
                },
            },
            **one_of_properties(*kinds),
        )
    }
