# Every target does its own set-up in .venv, on a machine that has Python 3.11 or newer and make.
# The second time is quick: a stamp file says what is installed already.

VENV := .venv
BIN := $(VENV)/bin
# The first of these that is new enough; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$candidate && break; done)
# Tests share the two sides of a process boundary with real servers; more workers than cores slow them down.
WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: help demo test faults matrix wheels lint format bench schema clean

help:
	@echo "make demo   run the main job: real Airflow, an embedded broker, events in a live table"
	@echo "            (BOOTSTRAP_SERVERS=host:port for your own broker, KEEP=1 to leave Airflow running)"
	@echo "make test   lint and every test; real Kafka is started from Maven jars where Java and Maven are"
	@echo "make faults kill, cut off, fill up: every fault in full, and a table of what became of the events"
	@echo "make matrix install the built wheel into every supported set of packages, run the tests and the demo there"
	@echo "            (MATRIX_ARGS=--reduced for few tests and the demo, or MATRIX_ARGS=3.1.8-py3.11 for one set)"
	@echo "make wheels build both distributions into dist: the provider, and the one without Airflow"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make bench  measure against raw confluent-kafka, kafka-python, aiokafka and OpenLineage"
	@echo "make clean  remove everything that the other targets made"

demo: $(VENV)/.installed
	$(BIN)/python -m demo

test: lint
	$(BIN)/coverage erase
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --cov --cov-report= $(PYTEST_ARGS)
	$(BIN)/coverage report --skip-covered

faults: $(VENV)/.installed-dev
	FAULTS=full $(BIN)/python -m pytest -p no:randomly -o faulthandler_timeout=4000 tests/faults $(PYTEST_ARGS)

# Needs the Pythons of its cells; with uv it takes minutes less.
matrix:
	$(PYTHON) -m matrix $(MATRIX_ARGS)

wheels: $(VENV)/.pip
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist . ./distributions/core

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

schema: $(VENV)/.installed
	$(BIN)/python -m airflow_workflow_events.events.schema
	$(BIN)/python -m airflow_workflow_events.events.asyncapi

clean:
	rm -rf $(VENV) .work dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.pip:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@touch $@

# constraints.txt pins the tested set.
$(VENV)/.installed: $(VENV)/.pip pyproject.toml constraints.txt airflow_workflow_events/version.py
	@echo "installing Airflow and this provider into $(VENV) (a minute or two, once)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the test and lint tools into $(VENV)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test --group lint
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	@touch $@
