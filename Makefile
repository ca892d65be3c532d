# Everything a newcomer or CI needs; `make help` explains the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# as many at once as there are cores, each on one thread; a file's tests share what it has trained
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-pairs smoke check format bench clean

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv and install progtrain in it, editable, with its tools

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install ## Run the main job: a small network grows twice on real data, in under a minute
	$(BIN)/progtrain growth=budget warmup=cosine_ramp

test: install ## Run the tests (a few minutes on two cores)
	$(TESTS) -m "not slow"

test-all: install ## Run the tests and the long ones
	$(TESTS) -m "not exhaustive"

test-pairs: install ## Run every pair of operator, warmup and transfer (35 minutes of CPU time)
	$(TESTS) tests/test_compatibility.py

smoke: install ## Run the options of every group on tiny budgets
	$(BIN)/python tests/smoke.py

check: install ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: install ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Time a step against a hand-written loop, and a growth against a step
	$(BIN)/python benchmarks/overhead.py

clean: ## Remove caches and outputs, keep .venv
	rm -rf outputs dist .pytest_cache .ruff_cache
