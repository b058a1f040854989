"""The OpenAPI document: FastAPI's, with the bare routes, the answers' schemas and the problems added.

Answers are described by the very structs that are encoded (projections.views), so the two cannot differ. No page for
browsers is served: its scripts would come from somewhere else.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.approvals import AnswerRequest, ApprovalView
from api.cloudevents import BATCH, STRUCTURED
from api.commanding import Accepted, CancelRequest, ReasonRequest
from api.definitions import DefinitionView
from api.edge import OPEN
from api.events import EventsAccepted
from api.flows import WAIT_PARAMETERS
from api.problems import MEDIA_TYPE
from api.starting import StartRequest
from api.tasks import CompleteRequest, FailRequest, HeartbeatRequest, TaskAnswered
from api.turning import MigrateRequest, RerunRequest, RollbackRequest, Turned
from engine import VERSION
from projections import views

_REF: Final = "#/components/schemas/{name}"
_ANSWERED: Final = (
    views.Flow,
    views.FlowSummary,
    views.TaskView,
    views.HistoryEntry,
    views.RejectionView,
    DefinitionView,
    Accepted,
    StartRequest,
    CancelRequest,
    ReasonRequest,
    CompleteRequest,
    FailRequest,
    HeartbeatRequest,
    AnswerRequest,
    ApprovalView,
    TaskAnswered,
    EventsAccepted,
    MigrateRequest,
    RerunRequest,
    RollbackRequest,
    Turned,
)
_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "problems": {
            "type": "array",
            "description": "Each place that is wrong",
            "items": {
                "type": "object",
                "required": ["message"],
                "properties": {
                    "message": {"type": "string"},
                    "pointer": {"type": "string"},
                    "line": {"type": ["integer", "null"]},
                    "column": {"type": ["integer", "null"]},
                    "parameter": {"type": "string"},
                },
            },
        },
    },
}
_EVENT: Final = {
    "type": "object",
    "description": "A CloudEvent 1.0 in its JSON format",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"type": "string"},
        "dataschema": {"type": "string"},
        "data": {},
        "data_base64": {"type": "string"},
    },
    "additionalProperties": {"type": ["string", "integer", "boolean", "null"]},
}
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: id.secret"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "Key id and secret, for registry clients"},
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


def _page(key: str, name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [key, "next"],
        "properties": {
            key: {"type": "array", "items": _ref(name)},
            "next": {"type": ["string", "null"], "description": "The next page's cursor"},
        },
    }


def _content(schema: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _parameter(name: str, place: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        "description": description,
    }


_FLOW_ID: Final = _parameter("flow_id", "path", {"type": "string"}, "The flow's id")
_IDEMPOTENCY: Final = _parameter(
    "Idempotency-Key", "header", {"type": "string", "maxLength": 255}, "The same key and body start one flow"
)
_MIN_POSITION: Final = _parameter(
    "min_position", "query", {"type": "string"}, "Wait until the read model is as new as this position"
)

_BARE: Final[dict[str, dict[str, Any]]] = {
    "/flows": {
        "post": {
            "tags": ["flows"],
            "operationId": "start_flow",
            "summary": "Start a flow",
            "parameters": [_IDEMPOTENCY, *WAIT_PARAMETERS],
            "requestBody": {"required": True, "content": _content(_ref("StartRequest"))},
            "responses": {
                "202": {"description": "The broker has the command", "content": _content(_ref("Accepted"))},
                "200": {
                    "description": "With wait=completed: the ended flow",
                    "content": _content(_ref("Flow")),
                },
            },
        }
    },
    "/flows/{flow_id}": {
        "get": {
            "tags": ["flows"],
            "operationId": "get_flow",
            "summary": "One flow",
            "parameters": [_FLOW_ID, _MIN_POSITION, *WAIT_PARAMETERS],
            "responses": {"200": {"description": "The flow", "content": _content(_ref("Flow"))}},
        }
    },
}

_BY: Final = {
    "type": "object",
    "description": "The event that gave a value: sequence, time, kind, task, run, actor, command_id",
}
_STATE: Final = {
    "type": "object",
    "description": "The flow as it stood: status, sequence, input, data, context, active tasks, output or error",
    "required": ["id", "status", "sequence", "input", "data", "context", "active"],
}


def _told(key: str, *values: str) -> dict[str, Any]:
    item = {"path": {"type": "string"}, "by": _BY} | {name: {} for name in values}
    parts = {
        "id": {"type": "string"},
        key: {"type": "array", "items": {"type": "object", "properties": item}},
    }
    return {"type": "object", "required": list(parts), "properties": parts}


_PLANNED: Final = {
    "oneOf": [
        _ref("Turned"),
        {
            "type": "object",
            "description": "With dry_run=true: what would happen",
            "required": ["id", "possible"],
        },
    ]
}

_ANSWERS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("/flows/{flow_id}/states/{moment}", "get"): _STATE,
    ("/flows/{flow_id}/blame", "get"): _told("values", "value"),
    ("/flows/{flow_id}/changes", "get"): _told("changes", "before", "after"),
    ("/flows", "get"): _page("flows", "FlowSummary"),
    ("/flows/{flow_id}/tasks", "get"): _page("tasks", "TaskView"),
    ("/flows/{flow_id}/history", "get"): _page("events", "HistoryEntry"),
    ("/flows/{flow_id}/cancel", "post"): _ref("Accepted"),
    ("/flows/{flow_id}/suspend", "post"): _ref("Accepted"),
    ("/flows/{flow_id}/resume", "post"): _ref("Accepted"),
    ("/flows/{flow_id}/rollback", "post"): _PLANNED,
    ("/flows/{flow_id}/migrate", "post"): _PLANNED,
    ("/flows/{flow_id}/rerun", "post"): _PLANNED,
    ("/tasks/{token}/complete", "post"): _ref("TaskAnswered"),
    ("/tasks/{token}/fail", "post"): _ref("TaskAnswered"),
    ("/tasks/{token}/heartbeat", "post"): _ref("TaskAnswered"),
    ("/approvals/{token}", "post"): _ref("TaskAnswered"),
    ("/approvals", "get"): _page("approvals", "ApprovalView"),
    ("/events", "post"): _ref("EventsAccepted"),
    ("/rejections", "get"): _page("rejections", "RejectionView"),
    ("/definitions", "get"): _page("definitions", "DefinitionView"),
    ("/definitions", "post"): _ref("DefinitionView"),
}
_BODIES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("/flows/{flow_id}/cancel", "post"): _content(_ref("CancelRequest")),
    ("/flows/{flow_id}/suspend", "post"): _content(_ref("ReasonRequest")),
    ("/flows/{flow_id}/resume", "post"): _content(_ref("ReasonRequest")),
    ("/flows/{flow_id}/rollback", "post"): _content(_ref("RollbackRequest")),
    ("/flows/{flow_id}/migrate", "post"): _content(_ref("MigrateRequest")),
    ("/flows/{flow_id}/rerun", "post"): _content(_ref("RerunRequest")),
    ("/tasks/{token}/complete", "post"): _content(_ref("CompleteRequest")),
    ("/tasks/{token}/fail", "post"): _content(_ref("FailRequest")),
    ("/tasks/{token}/heartbeat", "post"): _content(_ref("HeartbeatRequest")),
    ("/approvals/{token}", "post"): _content(_ref("AnswerRequest")),
    ("/events", "post"): _content(_EVENT, STRUCTURED)
    | _content({"type": "array", "minItems": 1, "items": _EVENT}, BATCH)
    | _content({"description": "Binary mode: the data; attributes are headers ce-id, ce-source, ..."}, "*/*"),
    ("/definitions", "post"): _content({"type": "string"}, "application/yaml") | _content({"type": "object"}),
    ("/definitions/validate", "post"): _content({"type": "string"}, "application/yaml")
    | _content({"type": "object"}),
}


_BODY_OPTIONAL: Final = ("/cancel", "/suspend", "/resume", "/complete", "/heartbeat", "/migrate", "/rerun")


def describe(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Flowtrail",
        version=VERSION,
        summary="Publish definitions, start flows, follow them",
        routes=app.routes,
    )
    paths: dict[str, Any] = document["paths"]
    for path, operations in _BARE.items():
        paths.setdefault(path, {}).update(operations)
    for path, operations in paths.items():
        for method, operation in operations.items():
            _complete(path, method, operation)
    components: dict[str, Any] = document.setdefault("components", {})
    _, schemas = msgspec.json.schema_components(_ANSWERED, ref_template=_REF)
    components["schemas"] = {**schemas, "Problem": _PROBLEM}
    components["securitySchemes"] = _SECURITY
    document["security"] = [{name: []} for name in _SECURITY]
    return document


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Answers and bodies as they are; FastAPI's own 422 is not what this API answers."""
    responses: dict[str, Any] = operation.setdefault("responses", {})
    responses.pop("422", None)
    responses["default"] = {"description": "A problem", "content": _content(_ref("Problem"), MEDIA_TYPE)}
    answered = _ANSWERS.get((path, method))
    if answered is not None:
        for status, response in responses.items():
            if status.startswith("2"):
                response["content"] = _content(answered)
    if (body := _BODIES.get((path, method))) is not None:
        operation["requestBody"] = {"required": not path.endswith(_BODY_OPTIONAL), "content": body}
    if path in OPEN:
        operation["security"] = []
