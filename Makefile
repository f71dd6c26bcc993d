# `make demo` and `make test` set up everything from nothing; nothing else has to be started.
PYTHON := $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
LAKE ?= lake
MIRROR ?=
RECIPE ?= laptop
ONLY ?=
SEED ?= 1
SHARE ?= 0.2
BIN := .venv/bin
export DAGSTER_HOME := $(CURDIR)/.dagster
export NEUROFMX_LAKE := $(abspath $(LAKE))
export DANDI_NO_ET := 1
export NO_ET := 1

.PHONY: demo test test-slow test-sample check ui bench peers snapshot cover clean

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; none was found on PATH."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/python -m pip check
	@touch $@

.dagster/dagster.yaml: dagster.yaml
	@mkdir -p .dagster
	@ln -sf ../dagster.yaml $@

demo: .venv/ready .dagster/dagster.yaml
	$(BIN)/neurofmx demo --lake $(LAKE) --recipe $(RECIPE) $(if $(MIRROR),--mirror $(MIRROR))

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# the slow tests, whole; test-sample runs a seeded share of them
test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --record tests/results/slow.json

test-sample: .venv/ready
	$(BIN)/python -m pytest -m slow --slow-share $(SHARE) --slow-seed $(SEED) -n 2 --dist worksteal

cover: .venv/ready
	$(BIN)/python -m pytest -m "slow or not slow" -n 2 --dist worksteal --record tests/results/all.json --cov --cov-report=term --cov-report=json:.coverage.json
	$(BIN)/python -m bench.coverage

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m bench.dictionary --check
	$(BIN)/python -m bench.evidence --check

ui: .venv/ready .dagster/dagster.yaml
	$(BIN)/dagster dev

bench: .venv/ready
	$(BIN)/python -m bench $(ONLY)

# other projects' loaders, read beside ours by `make bench ONLY=lake`; without them their rows are left out
peers: constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 torch-brain==0.2.1 webdataset==1.0.2

snapshot: .venv/ready
	$(BIN)/dvc repro

clean:
	rm -rf .venv .dagster lake .pytest_cache .ruff_cache
