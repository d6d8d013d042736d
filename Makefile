# Each target makes its own .venv when there is none; nothing but python3 and make is needed.
# Versions are those of constraints.txt; `make LOCK= test` takes the newest that pyproject.toml allows.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK ?= constraints.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCK),-c $(LOCK))
DVC := $(BIN)/dvc --wait-for-lock
export HF_HUB_OFFLINE := 1
export DVC_NO_ANALYTICS := 1

.PHONY: repro test test-newest test-oldest lint lock bench ablations proof

# Stages that do not need each other run side by side, on one thread each, the others on two: on two cores that is
# quicker than one after the other, and results do not depend on how many cores there are. A thread count that is set
# holds for all. `dvc repro` does the same work, one stage at a time.
THREADS := $(if $(OMP_NUM_THREADS),,OMP_NUM_THREADS=2)
repro: export OMP_NUM_THREADS ?= 1
repro: export PATH := $(CURDIR)/$(BIN):$(PATH)
repro: $(VENV)/installed
	$(DVC) repro utterances
	@$(MAKE) --no-print-directory --jobs=2 only.regions only.features+alignment
	$(THREADS) $(DVC) repro shards
	@$(MAKE) --no-print-directory --jobs=3 $$($(DVC) stage list --name-only | \
		sed -n 's/^train@\(.*\)/only.train@\1+predict@\1/p') only.baselines
	$(THREADS) $(DVC) repro
	@echo "report: $(CURDIR)/report/index.html"

# only.A+B: stage A, then stage B, without what they depend on.
only.%:
	$(DVC) repro --single-item $(subst +, ,$*)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

# A new environment each time: one that is there already would keep the versions it has.
test-newest:
	rm -rf .venv-newest
	$(MAKE) VENV=.venv-newest LOCK= test

# The oldest versions that pyproject.toml allows. pip always takes the newest, so uv resolves them.
test-oldest:
	rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/python -m uv pip compile --quiet --resolution lowest-direct --extra all --extra dev --no-header \
		--no-annotate --python .venv-oldest/bin/python -o .venv-oldest/constraints.txt pyproject.toml
	$(MAKE) VENV=.venv-oldest LOCK=.venv-oldest/constraints.txt test

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A fresh resolve of pyproject.toml: takes minutes and several GB, and shows in git what it changed.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -e ".[all,dev]"
	.venv-lock/bin/python -m pip freeze --all --exclude-editable | .venv-lock/bin/python .ci/lock.py > constraints.new
	mv constraints.new constraints.txt
	rm -rf .venv-lock

bench: $(VENV)/installed
	$(BIN)/python cli.py bench factory
	$(BIN)/python cli.py bench train

ablations: $(VENV)/installed
	$(BIN)/python cli.py ablations

# An hour or more; goes on where it was stopped. `python cli.py ablations --params params/proof.yaml --tables` prints
# what is finished.
proof: $(VENV)/installed
	$(BIN)/python cli.py ablations --params params/proof.yaml

$(VENV)/installed: pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[all]"
	touch $@

$(VENV)/installed-dev: pyproject.toml $(LOCK) $(VENV)/installed
	$(PIP) -e ".[all,dev]"
	touch $@
