"""Who gets in, and what a caller without a good key sees."""

from __future__ import annotations

import asyncio
import base64
import stat
from pathlib import Path

import pytest

from api import keys
from api.errors import Unauthorized
from api.keyring import FRESH_S, STALE_S, Keyring
from api.memory import MemoryStore
from api.ports import StoredKey
from engine.errors import AwayError, InputError
from tests.unit.api_calls import KEY, Desk, desk, problem

PEPPER = b"pepper"


@pytest.fixture
def api() -> Desk:
    return desk()


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(key.replace(".", ":", 1).encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"Authorization": basic(KEY)},
        {"X-API-Key": KEY},
    ],
)
def test_a_good_key_gets_in_however_it_is_presented(api: Desk, headers: dict[str, str]) -> None:
    del api.http.headers["Authorization"]
    assert api.http.get("/flows", headers=headers).status_code == 200


def test_no_key_is_401_and_says_how_to_present_one(api: Desk) -> None:
    del api.http.headers["Authorization"]
    answer = api.http.get("/flows")
    assert problem(answer, 401, "unauthorized")["detail"].startswith("Expected an API key")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer nonsense",
        "Bearer ",
        "Bearer " + KEY[:-1] + "X",
        "Bearer unknown-000000.0123456789abcdefghij",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Digest x",
        "Bearer " + "x" * 5000,
        "Bearer tester-abc123.' OR 1=1 --------------",
    ],
)
def test_a_wrong_key_is_401(api: Desk, authorization: str) -> None:
    problem(api.http.get("/flows", headers={"Authorization": authorization}), 401, "unauthorized")


def test_a_route_that_does_not_exist_is_no_secret_told_to_strangers(api: Desk) -> None:
    assert api.http.get("/nothing", headers={"Authorization": ""}).status_code == 401
    problem(api.http.get("/nothing"), 404, "unknown-route")


def test_postgres_away_is_503_and_not_401(api: Desk) -> None:
    api.memory.store.away = True
    answer = api.http.get("/flows")
    problem(answer, 503, "server-away")
    assert answer.headers["retry-after"] == "1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryStore:
    key_id, secret = keys.split(KEY) or ("", "")
    return MemoryStore({key_id: StoredKey(key_id, keys.digest(PEPPER, secret), "tester", False)})


def run(keyring: Keyring) -> str:
    return asyncio.run(keyring.caller(KEY)).id


def test_a_key_is_looked_up_once_in_a_while(store: MemoryStore, clock: Clock) -> None:
    keyring = Keyring(store, PEPPER, clock)
    assert [run(keyring) for _ in range(3)] == ["tester-abc123"] * 3
    assert store.looks == 1
    clock.now = FRESH_S + 1
    run(keyring)
    assert store.looks == 2


def test_a_revoked_key_is_refused_once_it_is_looked_up_again(store: MemoryStore, clock: Clock) -> None:
    keyring = Keyring(store, PEPPER, clock)
    run(keyring)
    kept = store.keys["tester-abc123"]
    store.keys["tester-abc123"] = StoredKey(kept.key_id, kept.digest, kept.name, revoked=True)
    clock.now = FRESH_S + 1
    with pytest.raises(Unauthorized, match="was revoked"):
        run(keyring)


def test_a_known_key_outlives_an_absence_of_postgres_for_a_while(store: MemoryStore, clock: Clock) -> None:
    keyring = Keyring(store, PEPPER, clock)
    run(keyring)
    store.away = True
    clock.now = FRESH_S + 1
    assert run(keyring) == "tester-abc123"
    clock.now = STALE_S + 1
    with pytest.raises(AwayError):
        run(keyring)


def test_another_pepper_lets_nobody_in(store: MemoryStore, clock: Clock) -> None:
    with pytest.raises(Unauthorized):
        run(Keyring(store, b"other", clock))


def test_new_keys_are_valid_long_and_different() -> None:
    made = {keys.new_key("ci") for _ in range(100)}
    assert len(made) == 100
    for key in made:
        parts = keys.split(key)
        assert parts is not None
        assert parts[0].startswith("ci-")
        assert len(parts[1]) >= 43


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "-a", "a" * 33, "a.b"])
def test_a_bad_name_of_a_key_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Expected a key's name"):
        keys.new_key(name)


def test_the_pepper_is_made_once_and_is_private(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with pytest.raises(InputError, match="flowtrail admin init"):
        keys.read_pepper("", data)
    first = keys.read_pepper("", data, create=True)
    assert keys.read_pepper("", data, create=True) == first == keys.read_pepper("", data)
    assert stat.S_IMODE((tmp_path / "data" / "pepper").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["pepper"]
    assert keys.read_pepper("from the environment", data) == b"from the environment"


def test_an_empty_pepper_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text("\n")
    with pytest.raises(InputError, match="at least 16 characters"):
        keys.read_pepper("", str(tmp_path))
