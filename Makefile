# Each target makes its own .venv when there is none; nothing but python3 and make is needed.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
export DVC_NO_ANALYTICS := 1

.PHONY: repro test lint bench ablations

repro: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@echo "report: $(CURDIR)/report/index.html"

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python cli.py bench factory
	$(BIN)/python cli.py bench train

ablations: .venv/installed
	$(BIN)/python cli.py ablations

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/installed-dev: pyproject.toml .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@
