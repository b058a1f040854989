"""Kafka's jars in the cache: fetched by name with jgo, which needs no Maven, and checked against their hashes.

`kafka_jars.lock` names every jar and its SHA-256. Invariant: a folder in the cache is complete and verified,
because it appears by one rename; two processes that fetch at once take turns on a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError

LOCK = Path(__file__).with_name("kafka_jars.lock")
KAFKA_VERSION = "4.3.0"
CONNECTIONS = 6
TRIES = 3


@dataclass(frozen=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def locked_jars() -> tuple[Jar, ...]:
    lines = (line for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    jars = []
    for line in lines:
        name, sha256 = line.split()
        group, artifact, version = name.split(":")
        jars.append(Jar(group, artifact, version, sha256))
    return tuple(jars)


def cache_folder() -> Path:
    """FLOWTRAIL_CACHE, or the user's cache."""
    given = os.environ.get("FLOWTRAIL_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "flowtrail"


def jars_folder(cache: Path) -> Path:
    """Named after the lock's content, so that a changed lock never meets old jars."""
    return cache / f"kafka-{KAFKA_VERSION}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"


def is_cached(cache: Path) -> bool:
    folder = jars_folder(cache)
    return all((folder / jar.file).is_file() for jar in locked_jars())


def classpath(cache: Path, report: Callable[[str], None] = lambda _: None) -> str:
    """The jars as a Java class path; fetches what the cache does not have."""
    folder = jars_folder(cache)
    if not is_cached(cache):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _turn(cache / f"{folder.name}.lock"):
                if not is_cached(cache):
                    report(f"fetching Kafka {KAFKA_VERSION} ({len(locked_jars())} jars, 45 MB, once)")
                    _fetch_into(cache, folder)
        except OSError as problem:
            if _is_network(problem):
                raise StackError(f"Expected to fetch Kafka's jars but {problem}") from None
            raise StackError(
                f"Expected the cache {cache} to be writable but {problem}; FLOWTRAIL_CACHE names another folder"
            ) from None
    return os.pathsep.join(str(folder / jar.file) for jar in locked_jars())


def damaged(cache: Path) -> list[str]:
    """The cached jars whose bytes are not the locked ones."""
    folder = jars_folder(cache)
    return [jar.file for jar in locked_jars() if not _matches(folder / jar.file, jar)]


def _fetch_into(cache: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as name:
        work = Path(name)
        jars = work / "jars"
        jars.mkdir()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda jar: _fetch(jar, work / "repository", jars), locked_jars()))
        if folder.exists():  # incomplete: somebody deleted a part of it
            shutil.rmtree(folder)
        jars.rename(folder)


def _fetch(jar: Jar, repository: Path, jars: Path) -> None:
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository, local_repos=[], timeout=60)
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    problem: Exception | None = None
    for _ in range(TRIES):
        try:
            found = component.artifact().resolve()
        except (OSError, RuntimeError) as failure:
            problem = failure
            # jgo leaves a half-written file behind and takes it for the whole next time
            shutil.rmtree(repository / component.path_prefix, ignore_errors=True)
            continue
        if not _matches(Path(found), jar):
            raise StackError(
                f"Expected {jar.group}:{jar.artifact}:{jar.version} to have SHA-256 {jar.sha256} but what came differs"
            )
        Path(found).rename(jars / jar.file)
        return
    raise StackError(
        f"Expected to fetch {jar.group}:{jar.artifact}:{jar.version} but {TRIES} tries failed: {type(problem).__name__}"
    )


def _matches(path: Path, jar: Jar) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256
    except OSError:
        return False


def _is_network(problem: OSError) -> bool:
    return type(problem).__module__.startswith("requests")


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
