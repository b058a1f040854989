"""From a .proto endpoint to services that can be called: sources fetched, compiled by protoc, kept by their content.

Imports are read from beside the first file, with its authentication; those of google/protobuf come with the compiler,
which runs as a subprocess in a folder of its own. Invariants: a pool holds nothing but what its sources declare; no name
that an author chose is an option to the compiler (`-`, `@`), nor leads an import out of the first file's folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urljoin

from google.protobuf import descriptor_pb2, descriptor_pool  # type: ignore[import-untyped]
from google.protobuf.descriptor import ServiceDescriptor  # type: ignore[import-untyped]

from engine.tasks import problems
from engine.tasks.fetching import fetch
from engine.tasks.subprocesses import Bounds, supervised
from engine.tasks.uris import endpoint_of

FILES_MAX: Final = 64
KEPT: Final = 16
_BOUNDS: Final = Bounds(30.0, 65_536)
_IMPORT: Final = re.compile(rb'^[ \t]*import\s+(?:public\s+|weak\s+)?"([^"\\]{1,512})"\s*;', re.MULTILINE)
_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.proto")
_COMPILE: Final = """
import pathlib, sys, grpc_tools
from grpc_tools import protoc
own = str(pathlib.Path(grpc_tools.__file__).with_name("_proto"))
sys.exit(protoc.main(["protoc", "-I.", "-I" + own, "--include_imports", "--descriptor_set_out=set.bin", sys.argv[1]]))
"""

_pools: Final[OrderedDict[str, list[descriptor_pb2.FileDescriptorProto]]] = OrderedDict()


async def service_of(resource: Any, name: str, given: Mapping[str, Any]) -> ServiceDescriptor:
    """The service `name`, whose package may be left out, of an external resource. Raises TaskError."""
    endpoint = resource.get("endpoint") if isinstance(resource, dict) else resource
    uri, policy = endpoint_of(endpoint, given)
    sources = await _sources(uri, policy)
    files = await _compiled(sources, problems.place(uri))
    pool = descriptor_pool.DescriptorPool()
    found = []
    for file in files:
        pool.Add(file)
        prefix = f"{file.package}." if file.package else ""
        found += [prefix + service.name for service in file.service]
    wanted = [full for full in found if full == name] or [
        full for full in found if full.rpartition(".")[2] == name
    ]
    if len(wanted) != 1:
        raise problems.configuration(
            f"Expected a service {name[:128]!r} in {problems.place(uri)} but found {', '.join(found) or 'none'}"
        )
    service: ServiceDescriptor = pool.FindServiceByName(wanted[0])
    return service


async def _sources(uri: str, policy: Any) -> dict[str, bytes]:
    """Each file by the name under which it is imported, the first one first."""
    first = PurePosixPath(uri.partition("?")[0]).name or "main.proto"
    if _FILE.fullmatch(first) is None:
        first = "main.proto"
    sources = {first: await fetch(uri, policy)}
    waiting = [first]
    while waiting:
        for found in _IMPORT.findall(_uncommented(sources[waiting.pop()])):
            name = found.decode("utf-8", "replace")
            if name in sources or name.startswith("google/protobuf/"):
                continue
            if name.startswith("/") or ".." in PurePosixPath(name).parts or not name.isprintable():
                raise problems.configuration(f"Expected imports beside the proto file but found {name!r}")
            if len(sources) >= FILES_MAX:
                raise problems.configuration(f"Expected at most {FILES_MAX} proto files but there are more")
            sources[name] = await fetch(urljoin(uri, quote(name)), policy)
            waiting.append(name)
    return sources


def _uncommented(source: bytes) -> bytes:
    return re.sub(rb"/\*.*?\*/|//[^\n]*", b"", source, flags=re.DOTALL)


async def _compiled(sources: dict[str, bytes], place: str) -> list[descriptor_pb2.FileDescriptorProto]:
    key = hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()
    if key in _pools:
        _pools.move_to_end(key)
        return _pools[key]
    with tempfile.TemporaryDirectory(prefix="flowtrail-proto-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            await asyncio.to_thread(_write, folder, sources)
        except OSError:  # such as a name that is a file and a folder
            raise problems.configuration(
                f"Expected imports of {place} that can be files but found others"
            ) from None
        ended = await supervised(
            [sys.executable, "-I", "-c", _COMPILE, next(iter(sources))],
            name="protoc",
            stdin=b"",
            environment={"LANG": "C.UTF-8"},
            folder=folder,
            bounds=_BOUNDS,
        )
        if ended.code != 0:
            raise problems.configuration(f"Expected a proto file at {place} but {_first_line(ended.stderr)}")
        content = await asyncio.to_thread((folder / "set.bin").read_bytes)
    found = list(descriptor_pb2.FileDescriptorSet.FromString(content).file)
    _pools[key] = found
    while len(_pools) > KEPT:
        _pools.popitem(last=False)
    return found


def _write(folder: Path, sources: dict[str, bytes]) -> None:
    for name, content in sources.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _first_line(output: bytes) -> str:
    """The first problem in a file; whatever else the compiler writes is its own."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if ".proto:" in line]
    problem = next((line for line in lines if ": warning: " not in line), "protoc cannot compile it")
    return problem[:512]
