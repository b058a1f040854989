"""The application: routes around the ports. Makes no connection; what it is given, it is given open.

The hottest routes (start, get one flow) are bare Starlette routes and stand first; all others are FastAPI's, with
typed query parameters. Every route refuses query parameters it does not know.
"""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Lifespan, Scope

from api import (
    analysis,
    approvals,
    bodies,
    definitions,
    events,
    flows,
    health,
    openapi,
    past,
    problems,
    registry,
    tasks,
    turning,
)
from api.edge import Edge
from api.errors import MethodNotAllowed
from api.health import Readiness
from api.ports import Ports
from api.starting import start_flow
from api.wiring import wire
from engine.settings import Settings


def create_app(settings: Settings, ports: Ports, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    api = wire(settings, ports)
    app = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(known_parameters)],
        redirect_slashes=False,
    )
    app.state.api = api
    app.state.readiness = Readiness(ports)
    app.router.routes.append(_Bare("/flows", start_flow, methods=["POST"]))
    app.router.routes.append(_Bare("/flows/{flow_id}", flows.get_flow, methods=["GET"]))
    for room in (flows, past, turning, analysis, tasks, approvals, events, definitions, registry, health):
        app.include_router(room.router)
    app.router.routes.append(_Bare("/openapi.json", _document, methods=["GET"]))
    app.add_exception_handler(HTTPException, _problem)
    app.add_exception_handler(RequestValidationError, _problem)
    app.add_middleware(Edge, api=api)
    return app


async def known_parameters(request: Request) -> None:
    """Under /registry Confluent's clients send parameters of their own, which are ignored as its registry does."""
    if request.url.path.startswith("/registry"):
        return
    dependant = getattr(request.scope.get("route"), "dependant", None)
    if dependant is not None:
        bodies.refuse_unknown(request, _parameters(dependant))


def _parameters(dependant: Dependant) -> set[str]:
    """The names of a route's query parameters, those of what it depends on included."""
    found = {field.alias for field in dependant.query_params}
    return found.union(*(_parameters(inner) for inner in dependant.dependencies))


class _Bare(Route):
    """A Starlette route that says which route it is, as FastAPI's do; the metrics name it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, ({**child, "route": self} if match is Match.FULL else child)


async def _problem(request: Request, error: Exception) -> Response:
    path = request.url.path
    if isinstance(error, HTTPException) and error.status_code == 405:
        allow = ", ".join(_methods(request))
        error = MethodNotAllowed(f"Expected {allow} at {path} but found {request.method[:20]}", allow=allow)
    return problems.answer(error, path)


def _methods(request: Request) -> list[str]:
    """Every method that `request`'s path takes: two routes may share it."""
    return [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _document(request: Request) -> Response:
    app: FastAPI = request.app
    if app.openapi_schema is None:
        app.openapi_schema = openapi.describe(app)
    return JSONResponse(app.openapi_schema)
