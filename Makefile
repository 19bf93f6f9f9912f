# `make demo` and `make test` need nothing but this checkout and a Python 3.12: each sets up what it lacks in .venv.
.DEFAULT_GOAL := help
BIN := .venv/bin
WORKERS ?= 2
DEMO_DIR := runs/demo-$(shell date +%Y%m%d-%H%M%S)
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS)

.PHONY: help demo test setup setup-all check lint types layers tests test-slow test-gpu format doctor clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: setup ## train PPO on HalfCheetah-v5, evaluate it, make a video (core packages only)
	$(BIN)/robotrl train preset=demo run_dir=$(DEMO_DIR)
	$(BIN)/robotrl eval policy_dir=$(DEMO_DIR) episodes=10 seed=1

test: setup-all check tests ## every check: lint, format, types, layers, tests (all extras)

setup: ## .venv with the core packages
	@tools/setup.sh

setup-all: ## .venv with every extra
	@tools/setup.sh all

check: lint types layers

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports

tests:
	$(PYTEST) -m "not slow and not gpu"

test-slow: setup-all ## the tests that `make test` leaves out for their length
	$(PYTEST) -m "slow and not gpu"

test-gpu: setup-all ## the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

format: setup-all ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

doctor: setup ## check this machine
	$(BIN)/robotrl doctor

clean: ## remove what tools leave behind (not .venv, not runs)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

-include benchmarks/bench.mk
