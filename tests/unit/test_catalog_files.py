"""What definitions may name in the operator's folder of catalogs, and that nothing else is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.dsl.catalogs import resolve_document
from engine.dsl.errors import DefinitionError
from engine.errors import InputError
from engine.tasks.catalog_files import FILES_BYTES_MAX, reader

FUNCTION = b"set: {logged: true}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    file = tmp_path / "catalogs/functions/log/1.0.0/function.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(FUNCTION)
    (tmp_path / "secret.yaml").write_bytes(b"password: x\n")
    return tmp_path / "catalogs"


def test_a_function_is_read_by_catalog_by_folder_and_by_file_uri(root: Path) -> None:
    for uri in (
        "catalog:/functions/log/1.0.0/function.yaml",
        "functions/log/1.0.0/function.yaml",
        (root / "functions/log/1.0.0/function.yaml").as_uri(),
        f"file://localhost{root}/functions/log/1%2e0.0/function.yaml",
    ):
        assert reader(root)(uri) == FUNCTION


def test_what_is_on_another_host_is_not_ours(root: Path) -> None:
    for uri in ("https://example.com/a.yaml", "file://host/a.yaml", "//host/a.yaml", "urn:a"):
        assert reader(root)(uri) is None


def test_without_a_folder_nothing_is_ours(root: Path) -> None:
    for uri in ("catalog:/a.yaml", "a.yaml", (root.parent / "secret.yaml").as_uri()):
        assert reader("")(uri) is None
        assert reader(None)(uri) is None


def test_nothing_outside_is_read_by_any_way(root: Path) -> None:
    (root / "link.yaml").symlink_to(root.parent / "secret.yaml")
    (root / "up").symlink_to(root.parent)
    for uri in (
        "../secret.yaml",
        "catalog:/../secret.yaml",
        "link.yaml",
        "up/secret.yaml",
        "functions/../../secret.yaml",
        (root.parent / "secret.yaml").as_uri(),
        root.as_uri() + "/%2e%2e/secret.yaml",
        "file:///etc/passwd",
    ):
        with pytest.raises(LookupError, match="outside"):
            reader(root)(uri)


def test_names_that_are_no_files_are_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to(root / "loop")
    for uri in (
        "pipe",
        "functions",
        "a\0b",
        "file:///a%00b",
        "http://[a",
        "x" * 5000,
        "none.yaml",
        "loop",
        "",
    ):
        with pytest.raises((LookupError, OSError)):
            reader(root)(uri)


def test_the_files_of_one_document_are_bounded_together(root: Path) -> None:
    (root / "half.yaml").write_bytes(b"#" * (FILES_BYTES_MAX // 2))
    read = reader(root)
    read("half.yaml")
    read("half.yaml")
    with pytest.raises(LookupError, match="together"):
        read("functions/log/1.0.0/function.yaml")
    with pytest.raises(LookupError, match="together"):
        read("half.yaml")
    assert reader(root)("half.yaml")


def test_a_document_gets_what_its_catalogs_hold(root: Path) -> None:
    document = {"do": [{"a": {"call": "log:1.0.0@default"}}]}
    whole = resolve_document(document, reader(root))
    assert whole["use"] == {"functions": {"log:1.0.0@default": {"set": {"logged": True}}}}
    outside = {**document, "use": {"catalogs": {"c": {"endpoint": "file:///etc"}}}}
    outside["do"] = [{"a": {"call": "log:1.0.0@c"}}]
    with pytest.raises(DefinitionError, match="outside of the folder"):
        resolve_document(outside, reader(root))


def test_a_folder_that_is_not_there_is_bad_input(root: Path) -> None:
    with pytest.raises(InputError, match="a folder of catalogs"):
        reader(root / "none")
