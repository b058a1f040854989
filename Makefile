# Every target sets up what it needs. Without uv on PATH, .venv is made by python3 and uv is installed into it.
# requirements*.lock pin every package by hash (docs/decisions/002); they name no registry, so any mirror serves.
PYTHON ?= python3
export UV_PYTHON_DOWNLOADS = never
UV := $(shell command -v uv 2>/dev/null || echo .venv/bin/uv)
RUN := .venv/bin/
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: demo test test-fast lint format up down bench lock clean

demo: .venv/.runtime
	$(RUN)flowtrail demo $(DEMO_ARGS)

test: .venv/.development
	$(RUN)python -m pytest tests/unit tests/contract tests/simulation -n 2 $(TEST_ARGS)
	$(RUN)python -m pytest tests/integration tests/conformance $(TEST_ARGS)

test-fast: .venv/.development
	$(RUN)python -m pytest tests/unit tests/contract tests/conformance tests/simulation -q -x -n 2 --seeds 50 $(TEST_ARGS)

lint: .venv/.development
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports

format: .venv/.development
	$(RUN)ruff format .
	$(RUN)ruff check --fix .

up: .venv/.runtime
	$(RUN)flowtrail up

down: .venv/.runtime
	$(RUN)flowtrail down

bench: .venv/.development
	$(RUN)flowtrail bench throughput --flows 10000 --tasks 3 $(BENCH_ARGS)
	$(RUN)flowtrail bench latency $(BENCH_ARGS)
	$(RUN)python -m bench.compare $(BENCH_ARGS)

# Run after changing a pyproject.toml
lock:
	$(UV) lock --upgrade
	$(UV) export -q --no-header --no-annotate --no-emit-workspace --no-default-groups --format requirements-txt -o requirements.lock
	$(UV) export -q --no-header --no-annotate --no-emit-workspace --all-groups --format requirements-txt -o requirements-dev.lock

clean:
	rm -rf .venv .flowtrail .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv/bin/python:
	@if command -v uv >/dev/null 2>&1; then uv venv -q --python $(PYTHON) .venv; \
	else $(PYTHON) -m venv .venv && .venv/bin/pip install -q uv; fi

.venv/.runtime: .venv/bin/python requirements.lock pyproject.toml sdk/pyproject.toml
	$(UV) pip install -q --python .venv/bin/python --require-hashes -r requirements.lock
	$(UV) pip install -q --python .venv/bin/python --no-deps -e . -e ./sdk
	@touch $@

.venv/.development: .venv/.runtime requirements-dev.lock
	$(UV) pip install -q --python .venv/bin/python --require-hashes -r requirements-dev.lock
	@touch $@
