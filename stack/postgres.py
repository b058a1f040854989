"""A real PostgreSQL cluster in one folder: made once, started with our settings, reached over TCP and a socket.

User, database: flowtrail. The password is generated and kept in a file of its own (0600). Durability is
PostgreSQL's own default; a projection chooses per transaction what it can lose. Invariants: a cluster folder is
complete, because it appears by one rename; nothing is removed from it but the lock file of a server that is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil

from stack.errors import Refused, StackError
from stack.ports import HOST
from stack.postgres_binaries import Binaries
from stack.processes import Identity
from stack.state import write_private
from stack.supervisor import Child

USER = DATABASE = "flowtrail"
PASSWORD_FILE = "postgres-password"  # noqa: S105
INIT_DEADLINE_S = 120
OUTSIDE = Path("/var/lib/flowtrail")
OUTSIDE_TEMPORARY = "flowtrail-cluster-"
SETTINGS = {
    "listen_addresses": HOST,
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "fsync": "on",
    "jit": "off",  # short queries: compiling them takes longer than running them
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

Account = tuple[int, int] | None


def password(data: Path) -> str:
    """The cluster's password, generated at the first call."""
    path = data / PASSWORD_FILE
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24) + "\n")
    return path.read_text().strip()


def url(port: int, secret: str | None = None) -> str:
    """With the password for a connection; without it for people's eyes."""
    account = USER if secret is None else f"{USER}:{quote(secret, safe='')}"
    return f"postgresql://{account}@{HOST}:{port}/{DATABASE}"


def without_password(given: str) -> str:
    """A connection URL for people's eyes: a secret may also stand behind the question mark."""
    parts = urlsplit(given)
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}"


def require_url(given: str) -> str:
    """What the rest of the stack can probe and show: a URL, not libpq's key=value form."""
    if urlsplit(given).scheme not in ("postgres", "postgresql") or not urlsplit(given).hostname:
        raise Refused(
            "Expected FLOWTRAIL_POSTGRES to be postgresql://USER:PASSWORD@HOST:PORT/DATABASE but it is not"
        )
    return given


def cluster_folder(data: Path, owner: Account) -> Path:
    """Where the cluster of `data` is, or is to be made: in it, or where `owner` cannot go there, elsewhere.

    PostgreSQL's account must be able to pass through every folder above the cluster, and root's home or
    pytest's temporary folders do not let it. Then the cluster lies elsewhere and `data/postgres` links to it.
    """
    place = data / "postgres"
    if place.is_symlink() or place.is_dir():
        return place.resolve()
    if owner is None or _passable(data, owner):
        return place
    name = hashlib.sha256(str(data).encode()).hexdigest()[:16]
    temporary = Path(tempfile.gettempdir()).resolve()
    if data.is_relative_to(temporary):
        _collect_abandoned(temporary)
        outside = temporary / f"{OUTSIDE_TEMPORARY}{name}"
    else:
        outside = OUTSIDE / name
    outside.mkdir(mode=0o755, parents=True, exist_ok=True)
    if outside.is_symlink() or outside.stat().st_uid != os.geteuid():
        raise StackError(
            f"Expected {outside} to be a folder of our own for the cluster but somebody else laid it"
        )
    (outside / "belongs-to").write_text(f"{data}\n")
    return outside / "cluster"


def prepare(data: Path, cluster: Path, binaries: Binaries, owner: Account) -> None:
    """Make the cluster where there is none, and clear what a dead server left."""
    if not (cluster / "PG_VERSION").exists():
        _make(cluster, binaries, owner, password(data))
    place = data / "postgres"
    if cluster != place and not place.exists():
        place.unlink(missing_ok=True)
        place.symlink_to(cluster)
    remove_stale_lock(cluster)


def child(cluster: Path, binaries: Binaries, owner: Account, port: int, log: Path) -> Child:
    socket = socket_folder(cluster, owner)
    options = SETTINGS | {"port": str(port), "unix_socket_directories": str(socket)}
    argv = [binaries.program("postgres"), "-D", str(cluster)]
    argv += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]

    def before_each_start() -> None:
        remove_stale_lock(cluster)
        socket_folder(cluster, owner)

    return Child(
        name="postgres",
        argv=tuple(argv),
        log=log,
        port=port,
        folder=Path("/"),
        account=owner,
        stop_signal=signal.SIGINT,  # fast: ends the sessions, writes everything, needs no recovery
        stop_deadline_s=30.0,
        prepare=before_each_start,
    )


def socket_folder(cluster: Path, owner: Account) -> Path:
    """A short path, for a socket's may have 107 bytes only. Refuses a folder that somebody else laid there."""
    folder = _socket_path(cluster)
    user, group = owner or (os.geteuid(), os.getegid())
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        os.chown(folder, user, group)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != user:
        raise StackError(f"Expected {folder} to belong to Postgres's account but user {found.st_uid} owns it")
    return folder


def remove_socket_folder(cluster: Path) -> None:
    """After the server has ended; its socket went with it, or the folder is kept."""
    with contextlib.suppress(OSError):
        _socket_path(cluster).rmdir()


def _socket_path(cluster: Path) -> Path:
    name = hashlib.sha256(str(cluster).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"flowtrail-{name}"


def major_of(cluster: Path) -> int | None:
    """The version that made the cluster; None where there is none."""
    try:
        return int((cluster / "PG_VERSION").read_text())
    except (OSError, ValueError):
        return None


def running(cluster: Path) -> Identity | None:
    """The server that runs in the cluster now, whoever started it."""
    pid = _locked_by(cluster)
    identity = Identity.of(pid) if pid else None
    return identity if identity is not None and _serves(identity.pid, cluster) else None


def remove_stale_lock(cluster: Path) -> None:
    """PostgreSQL takes a lock file for its own when its pid is in use again, by whatever process.

    Shared memory still guards the cluster then: a server is refused while an old one's children live.
    """
    pid = _locked_by(cluster)
    if pid is not None and not _serves(pid, cluster):
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _locked_by(cluster: Path) -> int | None:
    try:
        return int((cluster / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _serves(pid: int, cluster: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and str(cluster) in process.cmdline()
    except psutil.Error:
        return False


def _make(cluster: Path, binaries: Binaries, owner: Account, secret: str) -> None:
    new = cluster.with_name(f"{cluster.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a start that was killed
    new.mkdir(mode=0o700)
    descriptor, name = tempfile.mkstemp(prefix="flowtrail-")
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    try:
        if owner is not None:
            os.chown(new, *owner)
            os.chown(name, *owner)
        argv = [binaries.program("initdb"), "-D", str(new), "-U", USER, "--pwfile", name]
        # C: the order of text is that of its bytes, on every machine
        argv += ["-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "--no-instructions"]
        _run(argv, owner)
        single = [binaries.program("postgres"), "--single", "-D", str(new), "postgres"]
        _run(single, owner, f"CREATE DATABASE {DATABASE};\n")
    finally:
        Path(name).unlink()
    new.rename(cluster)


def _run(argv: list[str], owner: Account, text: str = "") -> None:
    user, group = owner or (None, None)
    result = subprocess.run(
        argv,
        input=text,
        capture_output=True,
        text=True,
        cwd="/",
        user=user,
        group=group,
        extra_groups=[] if owner else None,
        timeout=INIT_DEADLINE_S,
        check=False,
    )
    if result.returncode or "ERROR:" in result.stderr:
        last = "\n".join(f"  | {line}" for line in (result.stdout + result.stderr).splitlines()[-12:])
        raise StackError(
            f"Expected {Path(argv[0]).name} to make the cluster but it ended with {result.returncode}:\n{last}"
        )


def _passable(folder: Path, owner: tuple[int, int]) -> bool:
    """Whether `owner` may enter the folder: asked of the kernel, which also knows access lists."""
    answer = subprocess.run(
        ["test", "-x", folder],
        cwd="/",
        user=owner[0],
        group=owner[1],
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    return answer.returncode == 0


def _collect_abandoned(temporary: Path) -> None:
    """Remove clusters in the temporary folder whose data directory, also temporary, has been deleted."""
    for outside in temporary.glob(f"{OUTSIDE_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if outside.stat().st_uid != os.geteuid():
                continue
            data = Path((outside / "belongs-to").read_text().strip())
            if not data.exists() and running(outside / "cluster") is None:
                shutil.rmtree(outside)
