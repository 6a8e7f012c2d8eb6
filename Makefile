# `make` without a target lists the project's commands.
# PYTHON creates the virtual environment. For example, `make run PYTHON=python3.12` uses Python 3.12.
PYTHON ?= python3
BIN := .venv/bin

# A Python given on the command line must have the same version as an existing virtual environment.
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard .venv/python),)
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(shell $(PYTHON) $(VERSION)),$(shell $(BIN)/python $(VERSION)))
$(error .venv has Python $(shell $(BIN)/python $(VERSION)), and $(PYTHON) is another version: remove the folder .venv, and try again)
endif
endif
endif

.DEFAULT_GOAL := help
.PHONY: help run dev stop status logs trace user dead-letters redrive discard test test-fast test-pythons fuzz faults simulate soak check audit lock update bench deploy rollback destroy verify-deploy

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run  ## Start the whole system on this machine, and run its main job once
	@$(BIN)/python -m local run

dev: .venv/dev  ## Run every saved edit at once; with DEBUG=store_orders, a debugger can attach to that function on PORT=5678
	@$(BIN)/python -m local dev $(if $(DEBUG),--debug '$(DEBUG)') $(if $(PORT),--port '$(PORT)')

stop: .venv/run  ## Stop everything that `make run` started
	@$(BIN)/python -m local stop

status: .venv/run  ## Show what is running, and where
	@$(BIN)/python -m local status

logs: .venv/run  ## Follow the logs of the functions and the API; select lines with FUNCTION=store_orders, ID=x and SINCE=15m
	@$(BIN)/python -m local logs $(if $(FUNCTION),--function '$(FUNCTION)') $(if $(ID),--id '$(ID)') $(if $(SINCE),--since '$(SINCE)')

dead-letters: .venv/run  ## List the messages that failed permanently, and those put back or discarded; add STAGE=y for a stage on AWS
	@$(BIN)/python -m local dead-letters $(STAGE)

trace: .venv/run  ## Follow one id through the logs: make trace ID=x; add HTML=trace.html for a page, STAGE=y SINCE=7d for a stage on AWS
	@test -n "$$ID" || { echo "name what to follow: make trace ID=x, where x is an order's, a report's or a request's id, or an upload's key"; exit 1; }
	@$(BIN)/python -m $(if $(STAGE),infra.trace,local trace) $(if $(HTML),--html '$(HTML)') -- "$$ID" $(STAGE) $(SINCE)

USER_ACTION = $(if $(DISABLE),--disable) $(if $(ENABLE),--enable) $(if $(REMOVE),--remove) $(if $(YES),--yes)
user: .venv/run  ## Create a user: make user NAME=x GROUP=staff; or DISABLE=1, ENABLE=1 or REMOVE=1 instead of GROUP; add STAGE=y for a stage on AWS
	@$(BIN)/python -m $(if $(STAGE),infra.users,local user) $(USER_ACTION) -- "$$NAME" "$$GROUP" $(STAGE)

LETTERS = $(STAGE) $(if $(KIND),--kind '$(KIND)') $(if $(ID),--id '$(ID)')
redrive: .venv/run  ## Send the dead letters back to where they came from, or only those of KIND=order or with ID=x
	@$(BIN)/python -m local redrive $(LETTERS)

discard: .venv/run  ## Remove dead letters after a confirmation: make discard ID=x or KIND=order; YES=1 skips the question
	@$(BIN)/python -m local discard $(LETTERS) $(if $(YES),--yes)

# Each of the two workers has its own stack. Compiled files would change the package that the other worker deploys.
PYTEST := PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m pytest -n 2 --durations=10
# A file's tests run on one worker, and the files run in the order that tests/conftest.py sets.
BY_FILE := --dist loadfile --no-loadscope-reorder

# COVERAGE=1 reports the lines that no test runs, and takes a minute longer.
test: .venv/dev  ## Run every test, with separate ports and data; select tests with ARGS="-k orders"
	$(PYTEST) $(BY_FILE) $(if $(COVERAGE),--cov=app --cov=chalicelib --cov=infra) $(ARGS)

test-fast: .venv/dev  ## Run the tests that need no stack, in less than a minute
	$(PYTEST) tests/unit tests/wiring tests/simulation/test_simulation.py $(ARGS)

test-pythons:  ## Run the tests that need no stack, and build the package, with every installed Python or only PYTHONS=3.14
	@$(PYTHON) -m tests.pythons $(PYTHONS)

fuzz: .venv/dev  ## Send random requests to the API, and random input to the parsers, for several minutes
	CAFE_FUZZ=long $(PYTEST) $(BY_FILE) -m "fuzz or hypothesis" $(ARGS)

faults: .venv/dev  ## Run the whole fault matrix, which makes each part fail and counts lost and duplicated work
	$(PYTEST) -m "" tests/faults $(ARGS)
	$(BIN)/python -m tests.simulation mechanisms

simulate: .venv/dev  ## Play random histories full of faults in virtual time, for SECONDS=60
	@$(BIN)/python -m tests.simulation $(if $(SECONDS),--seconds '$(SECONDS)')

soak: .venv/dev  ## Test 10,000 orders while calls fail, ten minutes of work while MySQL and functions restart, and outages of AWS
	$(BIN)/python -m tests.faults load
	$(BIN)/python -m tests.faults soak
	$(BIN)/python -m tests.faults outage

# The checks run in parallel, starting with the longest.
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
# statelint does not know that the pause of a Wait state can be an expression.
check-machines:
	mkdir -p .local/machines
	for machine in infra/*.asl.json; do \
		sed 's/"Seconds": "{%.*%}"/"Seconds": 1/' $$machine > .local/machines/$${machine##*/}; \
		$(BIN)/statelint .local/machines/$${machine##*/} || exit 1; \
	done
check-docs:
	$(BIN)/cog --check --verbosity=1 -I docs -p 'import tables' docs/*.md docs/decisions/*.md
check-lint:
	$(BIN)/ruff check .
check-format:
	$(BIN)/ruff format --check .

audit: .venv/dev  ## Check the requirements for known vulnerabilities, which needs internet access
	for file in local/requirements.txt local/ministack*requirements.txt; do \
		$(BIN)/pip-audit --disable-pip --requirement $$file || exit 1; done

# A file can repeat the versions of the files before it.
LOCKS := requirements local/ministack-requirements local/ministack-own-requirements local/requirements requirements-dev \
	tests/deploying/graders-requirements tests/deploying/oldest-sdk-requirements tests/deploying/newest-sdk-requirements
lock: .venv/dev  ## Lock the exact versions and hashes of the packages that the files *requirements*.in name
	@for file in $(LOCKS); do $(BIN)/uv pip compile --quiet $(UPGRADE) --universal --fork-strategy fewest \
		--python-version 3.11 --generate-hashes --custom-compile-command 'make lock' $$file.in -o $$file.txt || exit 1; done
	@git diff --unified=0 -- $(addsuffix .txt,$(LOCKS)) | sed -n 's/^\([-+][^ ]*==[^ ]*\).*/\1/p' | sort -u -k 1.2

update:  ## Lock the newest version of every package, and show what changed
	@$(MAKE) --no-print-directory lock UPGRADE=--upgrade

bench: .venv/dev  ## Run the benchmarks against other programs, and measure the documented limits
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.limits

# YES=1 skips the confirmation, but deletes data only with DELETE_DATA=<stage>.
# UNCHECKED=1 skips the preflight check for missing IAM permissions.
ANSWER := $(if $(YES),--yes) $(if $(UNCHECKED),--unchecked)
deploy: stage .venv/run  ## Deploy the whole system to AWS: make deploy STAGE=x
	@$(BIN)/python -m infra.deploy $(STAGE) $(ANSWER)

rollback: stage .venv/run  ## Restore the previous release: make rollback STAGE=x
	@$(BIN)/python -m infra.deploy $(STAGE) --rollback $(ANSWER)

destroy: stage .venv/run  ## Remove the whole system from AWS: make destroy STAGE=x; KEEP_DATA=1 keeps tables, buckets and MySQL
	@$(BIN)/python -m infra.deploy $(STAGE) --destroy $(if $(KEEP_DATA),--keep-data) $(if $(DELETE_DATA),--delete-data '$(DELETE_DATA)') $(ANSWER)

verify-deploy: .venv/dev .local/graders/installed  ## Test the deploy's whole life cycle on the local cloud, compare it with moto, run checkov and cloudsplaining, and generate a client of the API
	$(PYTEST) $(BY_FILE) -m long tests/deploying tests/system tests/browser $(ARGS)

.PHONY: stage
stage:
	@test -n "$(STAGE)" || { echo "name the stage: make $(MAKECMDGOALS) STAGE=x"; exit 1; }

# uv installs packages faster than pip, so it is used if it is installed. Both refuse a package whose hash is not locked.
INSTALL := $(if $(shell sh -c 'command -v uv'),uv pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check) --require-hashes

# Three stamp files record whether .venv contains Python, what `run` needs, and what the tests need.
.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || { \
		echo "Python 3.11 to 3.14 is needed, and \`$(PYTHON)\` is another version or missing: name one, as in \`make run PYTHON=python3.12\`"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		echo "\`$(PYTHON) -m venv\` failed: on Debian and Ubuntu, \`sudo apt-get install python3-venv\` installs it"; exit 1; }
	@touch $@

.venv/run: .venv/python local/requirements.txt
	@echo "Installing the commands' requirements into .venv"
	@$(INSTALL) -r local/requirements.txt
	@touch $@

.venv/dev: .venv/run requirements-dev.txt
	@echo "Installing the tests' requirements into .venv"
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

# These programs' requirements conflict with the project's.
.local/graders/installed: .venv/python tests/deploying/graders-requirements.txt
	@echo "Installing checkov, cloudsplaining and openapi-python-client into .local/graders"
	@$(BIN)/python -m venv --clear .local/graders
	@.local/graders/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/deploying/graders-requirements.txt
	@touch $@
