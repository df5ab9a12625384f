# make train and make test need python3 (3.11 or newer) and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile  # Python compiles what is imported,
unexport PYTHONDONTWRITEBYTECODE  # and keeps that: else each command takes twice as long to start

.PHONY: train test test-slow test-faults check format bench bench-peers package clean

train: .venv/train  ## train the main experiment on the built-in sprites
	$(BIN)/unnoise-train experiment=sprites

test: .venv/ready  ## the test suite
	$(BIN)/python -m pytest -n auto

test-slow: .venv/ready  ## the tests that take longer
	$(BIN)/python -m pytest -m slow

test-faults: .venv/ready  ## runs that are killed, starved and lied to; every launcher; 20 minutes
	$(BIN)/python -m pytest -m faults

check: .venv/ready  ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py

format: .venv/ready  ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready  ## the benchmarks; tables and JSON in outputs/bench
	$(BIN)/python tests/benchmarks/run.py

bench-peers: .venv/ready  ## samples beside two other systems that train as long; hours
	$(INSTALL) --editable '.[dev,peers]'
	$(BIN)/python tests/benchmarks/peers.py --tuned

package: .venv/ready  ## wheel and sdist in dist, tried in an environment that has nothing else
	rm -rf dist build
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/only
	build/only/bin/python -m pip install --quiet --no-compile dist/*.whl
	cd build && for each in only/bin/unnoise-*; do $$each --help > help.txt || exit 1; done
	cd build && only/bin/unnoise-train experiment=sprites max_steps=2 trainer=cpu data.size=40 \
		data.validation_size=40 sampler.steps=2 callbacks.samples.count=4 validation_images=8

.venv/train: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unnoise needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/ready: .venv/train
	$(INSTALL) --editable '.[dev]'
	touch $@

clean:  ## remove the environment and caches, but no run
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis dist build
