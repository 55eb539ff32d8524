# Two commands do everything on a fresh Debian or Ubuntu machine with Python 3.11+: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

# One thread a process: small arrays gain nothing from more, and lose much on a busy machine.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: help setup demo test check speed schemas clean

help:
	@echo "make demo     set up, score toy submissions on a toy benchmark, compare them"
	@echo "make test     set up, lint, type-check, run all tests"
	@echo "make speed    the speed and memory benchmarks, with the figures they measure"
	@echo "make schemas  write the JSON Schemas anew from the code"
	@echo "make clean    remove what these commands made"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "== Setting up $(VENV) with $$($(PYTHON) --version) and the pinned versions of constraints.txt"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12 make $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "The venv module is missing: apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@echo "== Writing a toy benchmark and four toy submissions to $(DEMO)"
	@$(BIN)/medfocus-bench toy $(DEMO)
	@for name in oracle blurred shifted noisy; do \
		echo "== Scoring $(DEMO)/submissions/$$name (report: $(DEMO)/reports/$$name.json)"; \
		$(BIN)/medfocus-bench evaluate $(DEMO)/submissions/$$name -b $(DEMO)/benchmark \
			--out $(DEMO)/reports/$$name.json --brief || exit 1; \
	done
	@echo "== Comparing them, patient by patient"
	@$(BIN)/medfocus-bench compare $(DEMO)/submissions/blurred $(DEMO)/submissions/shifted \
		$(DEMO)/submissions/noisy null:mean-map -b $(DEMO)/benchmark

test: setup
	@echo "== Lint (ruff)"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== Types (mypy --strict)"
	@$(BIN)/mypy
	@echo "== Tests (pytest)"
	@$(BIN)/python -m pytest -n auto --dist loadfile

speed: setup
	@$(BIN)/python -m tests.speed

schemas: setup
	@$(BIN)/medfocus-bench schema submission | tee docs/submission.schema.json \
		> medfocus_bench/submission/submission.schema.json
	@$(BIN)/medfocus-bench schema report | tee docs/report.schema.json \
		> medfocus_bench/evaluation/report.schema.json

clean:
	rm -rf $(VENV) build
