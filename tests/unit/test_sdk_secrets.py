"""Sealed references: what replaces them, and that nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flowtrail import TaskError, unseal
from flowtrail.errors import AUTHORIZATION
from flowtrail.functions import Failure, Function, TaskContext
from flowtrail.secrets import unseal_json

CONTEXT = TaskContext("f1", "/do/0/charge", 1, 1, "demo/order@1.0.0", "default", "charge")


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWTRAIL_SECRET_SHOP_API", '{"user": "ann", "keys": ["k0", "k1"], "a/b": true}')
    monkeypatch.setenv("FLOWTRAIL_SECRET_PIN", "0042")
    monkeypatch.setenv("FLOWTRAIL_SECRETS_DIR", str(tmp_path))
    (tmp_path / "from-file").write_text("hush\n")


@pytest.mark.parametrize(
    ("sealed", "opened"),
    [
        ("⟦secret:shop.api/user⟧", "ann"),
        ("⟦secret:shop-api/keys/1⟧", "k1"),
        ("⟦secret:shop-api/keys⟧", ["k0", "k1"]),
        ("⟦secret:shop-api/a~1b⟧", True),
        ("⟦secret:pin⟧", "0042"),
        ("⟦secret:from-file⟧", "hush"),
        ("Bearer ⟦secret:from-file⟧/⟦secret:shop-api/a~1b⟧", "Bearer hush/true"),
        ({"a": [{"b": "⟦secret:pin⟧"}, 1, None, "x"]}, {"a": [{"b": "0042"}, 1, None, "x"]}),
        ("⟦authorization:scheme⟧", "⟦authorization:scheme⟧"),
        ("⟦other:pin⟧ ⟦secret⟧", "⟦other:pin⟧ ⟦secret⟧"),
    ],
)
def test_references_become_what_they_stand_for(sealed: Any, opened: Any) -> None:
    assert unseal(sealed) == opened


def test_an_authorization_is_replaced_once_it_is_known() -> None:
    known = {"scheme": "Bearer", "parameter": "abc"}
    sealed = "⟦authorization:scheme⟧ ⟦authorization:parameter⟧"
    assert unseal(sealed, known) == "Bearer abc"
    with pytest.raises(TaskError, match="an authorization with a realm"):
        unseal("⟦authorization:realm⟧", known)


@pytest.mark.parametrize(
    "place", ["none", "shop-api/nobody", "shop-api/keys/7", "shop-api/user/x", "../pin", ".hidden", ""]
)
def test_what_is_not_there_is_an_authorization_error_that_tells_no_secret(place: str) -> None:
    if not place:
        assert unseal("⟦secret:⟧") == "⟦secret:⟧"
        return
    with pytest.raises(TaskError, match=r"^Expected .* but") as refused:
        unseal(f"⟦secret:{place}⟧")
    assert (refused.value.type, refused.value.status) == (AUTHORIZATION, 403)
    assert "ann" not in str(refused.value)


def test_arguments_without_references_keep_their_very_bytes() -> None:
    raw = b'{"a" : 1.50, "text":"\\u00e9"}'
    assert unseal_json(raw) is raw
    assert unseal_json(b'["\\u27e6secret:pin\\u27e7"]') == b'["0042"]'
    assert unseal_json('["⟦secret:pin⟧"'.encode()) == '["⟦secret:pin⟧"'.encode()


def test_a_function_gets_the_secret_and_a_missing_one_fails_the_task() -> None:
    def charge(key: str) -> str:
        return f"{len(key)} characters"

    function = Function("charge", charge)
    assert function.perform('{"key": "⟦secret:pin⟧"}'.encode(), CONTEXT) == b'"4 characters"'
    failed = function.perform('{"key": "⟦secret:none⟧"}'.encode(), CONTEXT)
    assert isinstance(failed, Failure)
    assert (failed.type, failed.status) == (AUTHORIZATION, 403)
