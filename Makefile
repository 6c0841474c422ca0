# SPDX-FileCopyrightText: The thingstream.ztp authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Every target sets up what it needs in .venv and .cache; `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
COLLECTIONS := .cache/ansible_collections/thingstream
# One worker more than processors: tests wait for timers, and for each other's programs.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.cache
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible

.DEFAULT_GOAL := help
.PHONY: help help-all setup environments gateways system-packages demo test test-full ci weekly matrix matrix-full release tarball addresses test-faults test-faults-short lint unit shell integration bench docs screenshot argument-specs format clean eda execution-environment scaling slow-link profile awx

# `##` describes the targets that most people want, `#-` the others.
help:
	@awk -F ': .*## ' '/^[a-z-]+: .*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

help-all: ## List all targets
	@awk -F ': .*#[#-] ' '/^[a-z-]+: .*#[#-] / { printf "make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/complete $(COLLECTIONS)/ztp ## Make the virtual environment with everything the other targets need

.venv/complete: tests/requirements/tests.txt requirements.txt
	@echo "Making .venv (about a minute, once)"
	@$(PYTHON) -m venv .venv || { echo "Install the venv module of Python (python3-venv on Debian)."; exit 1; }
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --requirement tests/requirements/tests.txt
	@touch $@

# A tool that wants other versions than the tests has an environment of its own: tests/requirements/<name>.txt.
.cache/venv/%/complete: tests/requirements/%.txt requirements.txt
	@echo "Making .cache/venv/$* (once)"
	@$(PYTHON) -m venv --clear .cache/venv/$* || { echo "Install the venv module of Python (python3-venv on Debian)."; exit 1; }
	@.cache/venv/$*/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --requirement $<
	@touch $@

# Ansible finds a collection by its directory: the checkout itself, under the name it wants.
$(COLLECTIONS)/ztp:
	@mkdir -p $(COLLECTIONS)
	@ln -sfn ../../.. $@

system-packages:
	@tests/system-packages.sh

environments: setup .cache/venv/docs/complete gateways #- Make what `test` and `ci` need

gateways: setup system-packages
	@$(BIN)/python tests/gateways/fleet.py base .cache/gateways

demo: setup ## Show the main job: a simulator, a small fleet on this machine, no root, no token
	@$(BIN)/python tests/demo/demo.py

test: setup system-packages lint ## Run the linters and the tests
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/model tests/unit tests/shell
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/integration tests/gateways

unit: setup ## Run the tests that need nothing but Python and a shell
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) tests/unit tests/model

shell: setup system-packages ## Run the tests of the shell script, under dash and BusyBox
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) tests/shell

integration: setup system-packages ## Run the tests with simulator, gateways and consumers
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/integration tests/gateways

test-full: setup system-packages #- Run every test, also those that --full adds, with every state and moment (hours)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/model tests/unit tests/shell --full
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/integration tests/gateways --full
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/faults --full

test-faults: setup system-packages #- Try to break the promises, all of it; prints what was tried, survived and lost
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/faults tests/model --full

test-faults-short: setup system-packages #- A selection of the same, in minutes
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/faults

ci: ## Run what continuous integration runs after `make test`
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target matrix tarball docs
	@$(MAKE) --no-print-directory test-faults-short

weekly: test-full matrix-full release awx execution-environment eda #- Run what takes too long for every change

matrix: system-packages #- Run ansible-test with the oldest and the newest ansible-core: main job, sanity
	@$(PYTHON) tests/matrix/matrix.py

matrix-full: system-packages #- Run all of ansible-test with every supported ansible-core (a quarter of an hour)
	@$(PYTHON) tests/matrix/matrix.py --check sanity --check units --check "main job"

release: tarball .cache/venv/importer/complete ## Build the tarball of the last commit in .cache/release, and test it
	@$(BIN)/python -m pytest --quiet tests/release --full -k importer

tarball: setup #- Do the same without the importer of Galaxy
	@$(BIN)/python tests/release/build.py .cache/release
	@$(BIN)/python -m pytest --quiet tests/release

addresses: #- Change every address of the repository: make addresses REPOSITORY=https://git.example.org/group/name
	@: $(or $(REPOSITORY),$(error Set REPOSITORY to the new address))
	@old=$$(sed -n 's/^repository: //p' galaxy.yml) && \
		git grep --null --files-with-matches --fixed-strings "$$old" | xargs -0 sed -i "s|$$old|$(REPOSITORY)|g" && \
		sed -i "s|repository: .*|repository: $$(echo $(REPOSITORY) | cut -d / -f 4-)|" docs/docsite/links.yml

eda: setup .cache/venv/eda/complete #- Run the example rulebook with the real rule engine, which needs Java
	@tests/system-packages.sh java:openjdk-17-jre-headless curl:curl
	@$(BIN)/python -m pytest tests/eda

execution-environment: setup system-packages .cache/venv/execution-environment/complete #- Test that what is declared is enough
	@$(BIN)/python -m pytest tests/environment

# awx.awx is on PyPI within the bundle only, whose Python is newer than what is needed to read it.
AWX_BUNDLE := ansible==13.8.0
.cache/awx/complete: tests/awx/collection.py | .venv/complete
	@echo "Fetching awx.awx (55 MB, once)"
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--python-version 3.12 --dest .cache/awx/bundle $(AWX_BUNDLE)
	@$(BIN)/python tests/awx/collection.py .cache/awx/bundle/ansible-*.whl .cache/awx
	@rm -r .cache/awx/bundle
	@touch $@

awx: setup .cache/awx/complete #- Run the tests of AWX as code, with the modules of awx.awx
	@$(BIN)/python -m pytest tests/awx

lint: setup system-packages ## Run every linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@shellcheck plugins/plugin_utils/gateway/*.sh tests/system-packages.sh docs/site/build .ci/run extensions/eda/gateway/*
	@$(BIN)/yamllint --strict .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --profile production --strict
	@$(BIN)/antsibull-changelog lint
	@$(BIN)/reuse lint --quiet || $(BIN)/reuse lint

docs: .cache/venv/docs/complete $(COLLECTIONS)/ztp system-packages ## Build and check the documentation site
	@PATH="$(CURDIR)/.cache/venv/docs/bin:$$PATH" docs/site/build
	@.cache/venv/docs/bin/python -m pytest --quiet tests/docs

screenshot: setup system-packages #- Take the picture of the audit page for the documentation
	@TAKE_SCREENSHOT=1 $(BIN)/python -m pytest --quiet tests/integration/test_audit_page.py -k picture

argument-specs: setup $(COLLECTIONS)/ztp #- Make the argument specs of the role from the documentation of the modules
	@PYTHONPATH=.cache $(BIN)/python tests/role_argument_specs.py

bench: setup system-packages ## Measure against Ansible's own floor, over 50 gateways by SSH
	@$(BIN)/python tests/bench/bench.py

slow-link: setup system-packages #- Measure a fleet behind a slow link: forks, timeouts, kept connections
	@$(BIN)/python tests/bench/slow_link.py

profile: setup #- Show where a run with nothing due spends its time, compared with a raw task
	@$(BIN)/python tests/bench/profile_run.py

scaling: setup #- Measure what a gateway costs the controller, and what forks gain
	@$(BIN)/python tests/bench/scaling.py

format: setup #- Format the Python code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

clean: ## Remove everything that the targets have made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
