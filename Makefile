# Every command of the project; `make` alone lists them.
# The Python that makes the virtual environment: `make run PYTHON=python3.12` takes another.
PYTHON ?= python3
BIN := .venv/bin

# One that is named has to be that of the virtual environment, if there is one already.
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard .venv/python),)
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(shell $(PYTHON) $(VERSION)),$(shell $(BIN)/python $(VERSION)))
$(error .venv has Python $(shell $(BIN)/python $(VERSION)), and $(PYTHON) is another one: remove the folder .venv, and try again)
endif
endif
endif

.DEFAULT_GOAL := help
.PHONY: help run stop status logs trace user dead-letters redrive test test-fast test-pythons fuzz faults soak check audit bench deploy rollback destroy verify-deploy

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run  ## Start the whole system on this machine, and do its main job once
	@$(BIN)/python -m local run

stop: .venv/run  ## Stop everything that `make run` started
	@$(BIN)/python -m local stop

status: .venv/run  ## Say what is up, and where
	@$(BIN)/python -m local status

logs: .venv/run  ## Follow the logs of the functions and of the API
	@$(BIN)/python -m local logs

dead-letters: .venv/run  ## List what failed for good and waits for a person
	@$(BIN)/python -m local dead-letters

trace: .venv/run  ## Follow one thing through the logs: make trace ID=x, of a stage on AWS with STAGE=y SINCE=7d
	@test -n "$$ID" || { echo "name what to follow: make trace ID=x, the id of an order, a report or a request, or the key of an upload"; exit 1; }
	@$(BIN)/python -m $(if $(STAGE),infra.trace -- "$$ID" $(STAGE) $(SINCE),local trace -- "$$ID")

user: .venv/run  ## Make a person who may sign in: make user NAME=x GROUP=staff, of a stage on AWS with STAGE=y
	@$(BIN)/python -m $(if $(STAGE),infra.users,local user) '$(NAME)' '$(GROUP)' $(STAGE)

redrive: .venv/run  ## Put what failed for good back to where it came from
	@$(BIN)/python -m local redrive

# Each of the two workers has a stack of its own. Compiled files would change the packages that the other one deploys.
PYTEST := PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m pytest -n 2 --durations=10
# A file's tests stay on one worker, and the files in the order that tests/conftest.py gives them.
BY_FILE := --dist loadfile --no-loadscope-reorder

# COVERAGE=1 reports the lines that no test has run, and takes a minute.
test: .venv/dev  ## Run every test, on ports and data of their own; a part of them with ARGS="-k orders"
	$(PYTEST) $(BY_FILE) $(if $(COVERAGE),--cov=app --cov=chalicelib --cov=infra) $(ARGS)

test-fast: .venv/dev  ## Run the tests that need no stack, in less than a minute
	$(PYTEST) tests/unit tests/wiring $(ARGS)

test-pythons:  ## Run the tests that need no stack under each Python on this machine, and build its package: PYTHONS=3.14 for one of them
	@$(PYTHON) -m tests.pythons $(PYTHONS)

fuzz: .venv/dev  ## Send the API random requests, and give the readers random input, for some minutes
	CAFE_FUZZ=long $(PYTEST) $(BY_FILE) -m "fuzz or hypothesis" $(ARGS)

faults: .venv/dev  ## Run the whole fault matrix: let everything fail that can, and count what is lost or doubled
	$(PYTEST) -m "" tests/faults $(ARGS)

soak: .venv/dev  ## 10,000 orders while calls fail, ten minutes of work while MySQL and functions restart, a minute without AWS
	$(BIN)/python -m tests.faults load
	$(BIN)/python -m tests.faults soak
	$(BIN)/python -m tests.faults outage

# Side by side, the longest first.
CHECKS := check-template check-security check-types check-machines check-docs check-lint check-format
.PHONY: $(CHECKS)
check: .venv/dev  ## Check format, lint, types, security, templates and state machines
	@$(MAKE) --no-print-directory --jobs=4 --keep-going $(CHECKS)
check-template:
	$(BIN)/python -m infra.template .local/templates
	$(BIN)/cfn-lint .local/templates/*.yaml
check-security:
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml app.py chalicelib infra local
check-types:
	$(BIN)/mypy
check-machines:
	for machine in infra/*.asl.json; do $(BIN)/statelint $$machine || exit 1; done
check-docs:
	$(BIN)/cog --check --verbosity=1 -I docs -p 'import tables' docs/*.md docs/decisions/*.md
check-lint:
	$(BIN)/ruff check .
check-format:
	$(BIN)/ruff format --check .

audit: .venv/dev  ## Look the requirements up in the database of known vulnerabilities, which needs the internet
	for file in requirements.txt local/requirements.txt local/ministack*requirements.txt; do \
		$(BIN)/pip-audit --requirement $$file || exit 1; done

bench: .venv/dev  ## Measure: against peers in the same run, and the promised limits
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.limits

# YES=1 asks nothing, and UNCHECKED=1 does not ask IAM beforehand whether a right is missing.
ANSWER := $(if $(YES),--yes) $(if $(UNCHECKED),--unchecked)
deploy: stage .venv/run  ## Deploy the whole system to AWS: make deploy STAGE=x
	@$(BIN)/python -m infra.deploy $(STAGE) $(ANSWER)

rollback: stage .venv/run  ## Put the release before this one back: make rollback STAGE=x
	@$(BIN)/python -m infra.deploy $(STAGE) --rollback $(ANSWER)

destroy: stage .venv/run  ## Take the whole system off AWS: make destroy STAGE=x, and KEEP_DATA=1 keeps tables and buckets
	@$(BIN)/python -m infra.deploy $(STAGE) --destroy $(if $(KEEP_DATA),--keep-data) $(ANSWER)

verify-deploy: .venv/dev .local/graders/installed  ## Prove the deploy: its whole life on the local cloud, moto's server as a second opinion, and the graders
	$(PYTEST) $(BY_FILE) -m long tests/deploying tests/system tests/browser $(ARGS)

.PHONY: stage
stage:
	@test -n "$(STAGE)" || { echo "name the stage: make $(MAKECMDGOALS) STAGE=x"; exit 1; }

# The virtual environment, with what `run` needs and with what the tests need. Each file is a stamp.
.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || { \
		echo "Python 3.11 to 3.14 is needed, and \`$(PYTHON)\` is not: name one, as in \`make run PYTHON=python3.12\`"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		echo "\`$(PYTHON) -m venv\` failed: on Debian and Ubuntu, \`sudo apt-get install python3-venv\` brings it"; exit 1; }
	@touch $@

.venv/run: .venv/python requirements.txt local/requirements.txt
	@echo "Installing what the commands need, into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r local/requirements.txt
	@touch $@

.venv/dev: .venv/run requirements-dev.txt
	@echo "Installing what the tests need, into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# checkov and cloudsplaining have requirements that are not those of the others.
.local/graders/installed: .venv/python tests/deploying/graders-requirements.txt
	@echo "Installing the graders, into .local/graders"
	@$(BIN)/python -m venv --clear .local/graders
	@.local/graders/bin/python -m pip install --quiet --disable-pip-version-check -r tests/deploying/graders-requirements.txt
	@touch $@
