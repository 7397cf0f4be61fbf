# Two commands for a newcomer: `make demo` and `make test`. Each does all its own set-up; Python 3.11 is enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
MODEL ?= models/SmolLM2-135M-Instruct
# Its configuration is what our overrides of it are tested against.
VERL := 0.9.1
# Packages of Debian and Ubuntu that make a real Slurm with accounting.
SLURM := munge slurm-wlm slurmdbd slurm-wlm-mysql-plugin mariadb-server

.PHONY: help demo test test-unit test-slurm test-train lint docs slurm constraints clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.train ## train a real small language model here and watch it learn (no GPU, no root; about 5 minutes)
	$(BIN)/python examples/demo.py "$(MODEL)"

test: .venv/.dev slurm ## every test: unit, real Slurm, real training
	@bash tests/run.sh

test-unit: .venv/.dev ## unit tests
	$(BIN)/pytest tests/unit

test-slurm: .venv/.dev slurm ## tests on a throw-away Slurm cluster
	$(BIN)/pytest tests/slurm

test-train: .venv/.dev ## tests that train
	$(BIN)/pytest tests/train

lint: .venv/.dev ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.dev ## write the page of recipe keys anew from the schema
	$(BIN)/python docs/recipe_fields.py

slurm: # install Slurm where that needs no question; tests/run.sh says loudly when it is missing
	@export PATH="$$PATH:/usr/sbin:/sbin"; command -v slurmctld munged slurmdbd mariadbd >/dev/null && exit 0; \
	if ! command -v apt-get >/dev/null; then exit 0; fi; \
	if [[ $$(id -u) -eq 0 ]]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else exit 0; fi; \
	echo "installing Slurm for the tests: $(SLURM)"; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $(SLURM) gcc libc6-dev >/dev/null || true

# The stamps depend on what is installed, so an update of either file installs again.
.venv/bin/pip:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clusterctl needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	"$(PYTHON)" -m venv .venv

.venv/.train: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[train]' gguf
	@touch $@

.venv/.dev: .venv/.train
	$(BIN)/pip install --quiet -c constraints.txt -e '.[train,wandb,deepspeed,quantization,dev]'
	@# Beside the environment's packages: verl's wheel also brings packages named tests and scripts. Read, never run.
	$(BIN)/pip install --quiet --no-deps --upgrade --target .venv/verl verl==$(VERL)
	@touch $@

constraints: ## write constraints.txt from the environment as it is
	$(BIN)/pip freeze --exclude-editable | grep -v -e '^clusterctl' -e ' @ ' | sed 's/+cpu$$//' > constraints.txt

clean: ## remove environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
