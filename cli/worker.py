"""`flowtrail worker run`: loads a Worker object from a module or a file and runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flowtrail import Worker

app = typer.Typer(help="Perform tasks.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Perform tasks."""


def load(target: str) -> Worker:
    """The Worker named by MODULE:NAME or FILE.py:NAME. Raises InputError; what the module raises passes through."""
    import importlib
    import importlib.util
    import sys
    from pathlib import Path

    from flowtrail import Worker

    from engine.errors import InputError

    place, _, name = target.rpartition(":")
    if not place or not name.isidentifier():
        raise InputError(f"Expected MODULE:NAME or FILE.py:NAME but found {target!r}")
    if place.endswith(".py"):
        file = Path(place).resolve()
        if not file.is_file():
            raise InputError(f"Expected a file at {place} but there is none")
        sys.path.insert(0, str(file.parent))
        known_as = (
            f"flowtrail_worker_{file.stem}"  # not the stem alone, which could hide a module of that name
        )
        spec = importlib.util.spec_from_file_location(known_as, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known_as] = module  # dataclasses and type hints look their module up
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, str(Path.cwd()))
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as problem:
            if problem.name is None or not (place == problem.name or place.startswith(f"{problem.name}.")):
                raise
            raise InputError(f"Expected a module {place} but there is no {problem.name}") from None
    worker = getattr(module, name, None)
    if not isinstance(worker, Worker):
        found = "nothing" if worker is None else f"a {type(worker).__name__}"
        raise InputError(f"Expected a flowtrail.Worker as {name} in {place} but found {found}")
    return worker


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="MODULE_OR_FILE:NAME", help="Where the Worker object is")],
    concurrency: Annotated[int | None, typer.Option(help="Tasks performed at once", min=1, max=1000)] = None,
    instance: Annotated[
        str | None,
        typer.Option(help="Stable name, one process at a time: a restart gets its partitions back at once"),
    ] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds running tasks get when stopped", min=0)] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics; 0 opens none [FLOWTRAIL_METRICS_PORT]")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where the API is [FLOWTRAIL_API_URL]")] = None,
) -> None:
    """Perform the tasks of a worker's queue until SIGTERM or Ctrl-C."""
    import logging

    from cli.flows import api_key
    from engine.logs import configure
    from engine.settings import read_settings

    settings = read_settings(api_url=url, metrics_port=metrics_port)
    configure(settings.log_level, "worker")
    logging.getLogger("flowtrail").setLevel(
        settings.log_level.upper()
    )  # what the worker takes over and gives up
    worker = load(target)
    worker.url = worker.url if url is None and worker.url else settings.api_url
    worker.api_key = worker.api_key or api_key(settings.api_key, settings.data)
    worker.concurrency = worker.concurrency if concurrency is None else concurrency
    worker.instance = worker.instance if instance is None else instance
    worker.grace = worker.grace if grace is None else grace
    worker.metrics_port = settings.metrics_port or worker.metrics_port
    worker.run()
