# Every target sets up what it needs: a virtual environment with the pinned tools.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= examples/demo_model
DEMO_TARGETS ?= cpu gfx942
DEMO_PROMPT ?= 17 + 25 =
PYTEST_ARGS ?= -n auto --dist worksteal --durations 15
DEMO_OUT ?= build/demo.amdnfs
STAMP := $(VENV)/.installed

BUDGET_OUT ?= build/budget.amdnfs

.PHONY: help setup demo test lint conformance benchmarks budget clean

help:
	@echo "make demo         compile a model for $(DEMO_TARGETS) and let it write (MODEL=<folder or hub id> for another)"
	@echo "make test         lint, types and all tests; no GPU, no network but the package index"
	@echo "make conformance  print the table family x target and write docs/conformance.md"
	@echo "make benchmarks   measure; see benchmarks/README.md"
	@echo "make budget       compile the demo for all AMD targets; fail if a figure got worse than benchmarks/budget.json"
	@echo "make clean        remove build/ and the virtual environment"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned tools into $(VENV) (once; about 2 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@rm -rf $(DEMO_OUT)
	$(BIN)/amdnfs-compile $(MODEL) $(foreach target,$(DEMO_TARGETS),--target $(target)) --jobs 2 -o $(DEMO_OUT)
	$(BIN)/amdnfs inspect $(DEMO_OUT) --check
	$(BIN)/amdnfs generate $(DEMO_OUT) --target cpu --max-tokens 120 --prompt "$(DEMO_PROMPT)" --prompt "Once upon a time"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

conformance: $(STAMP)
	$(BIN)/python tests/conformance.py --write docs/conformance.md

benchmarks: $(STAMP)
	$(BIN)/python benchmarks/run_all.py

budget: $(STAMP)
	@rm -rf $(BUDGET_OUT)
	$(BIN)/amdnfs-compile examples/demo_model --target all-amd --jobs 2 -o $(BUDGET_OUT)
	$(BIN)/amdnfs report $(BUDGET_OUT) --budget benchmarks/budget.json

clean:
	rm -rf build $(VENV)
