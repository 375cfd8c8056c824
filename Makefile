# Everything a newcomer types. `make` alone prints this list.
#   VENV=path       where the environment lies (default .venv)
#   PYTHON=python3  the Python (3.11 or newer) that creates it
#   INSTALLER=pip   install with pip only (default uv, itself installed by pip: ten times faster)
#   JOBS=n          stages of `make reproduce` at once (default: all cores)
#   PROFILE=name    make this profile the active params.yaml first (default: keep the one that is there)

VENV ?= .venv
PYTHON ?= python3
INSTALLER ?= uv
PROFILE ?=
JOBS ?=
WORKERS ?= 2

# not abspath: it takes a path with a space for two
BIN := $(if $(filter /%,$(VENV)),$(VENV),$(CURDIR)/$(VENV))/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help env reproduce test bench lint format mmcv-ops clean distclean

help: ## print this list
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

env: ## create the environment, or do nothing if it is complete and current
	@$(PYTHON) tools/setup_env.py --venv "$(VENV)" --installer $(INSTALLER)

reproduce: env ## run the whole pipeline and write results/ (a second run computes only what changed)
	@python -m pipelines.checkout
	@if [ -n "$(PROFILE)" ]; then python -m pipelines.profile use $(PROFILE); \
	elif [ ! -e params.yaml ]; then python -m pipelines.profile use quick; fi
	python -m pipelines.reproduce $(if $(JOBS),--jobs $(JOBS))
	python -m pipelines.readme

test: env ## run the tests (WORKERS=2 processes)
	OMP_NUM_THREADS=1 python -m pytest -n $(WORKERS) --dist loadfile

bench: env ## run tests/benchmarks and write results/benchmarks.csv and .md
	mkdir -p build
	OMP_NUM_THREADS=1 python -m pytest tests/benchmarks --override-ini addopts= --benchmark-json=build/benchmark.json
	python -m pipelines.bench build/benchmark.json results/benchmarks.csv

lint: env ## style, types and the direction of imports
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: env ## put every file into the house style
	ruff check --fix .
	ruff format .

mmcv-ops: env ## optional: compile mmcv's own operators (about 3 minutes on 2 cores) in place of mmcv-lite
	python -m pip install --quiet --constraint constraints.txt ninja
	python tools/build_mmcv.py --install

clean: ## remove runs, builds and tool caches; data/, results/ and the environment stay
	rm -rf runs build .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -path "./$(VENV)" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also remove data/, DVC's cache and the environment
	rm -rf data .dvc/cache .dvc/tmp "$(VENV)"
