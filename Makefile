# `make` alone lists what there is. Everything happens in .venv; nothing else on the machine is touched.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
DATA := .gre-dev
PORT := 54321
ARGS :=
# For two cores. Tests wait for two thirds of their time, so with four processes half of both was idle; with eight, on a machine that
# also does other things, tests exceeded limits of time. Each needs 0.8 GB.
JOBS := 6

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(VENV)/.ready ## Make .venv with the locked dependencies

$(VENV)/.ready: requirements.lock pyproject.toml scripts/python.sh
	"$$(sh scripts/python.sh)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: setup ## Run the embedded stack with the daemon beside it (PORT=54321, Ctrl-C ends it)
	$(BIN)/gre-bridge dev --port $(PORT) --data-dir $(DATA) --write-env $(DATA)/env $(ARGS)

.PHONY: demo
demo: setup ## Show one conversation on its way: each hop with its time
	$(BIN)/python -m gre_bridge.devstack.demo $(ARGS)

.PHONY: console
console: ## Build the staff console and the player's page into the package (needs Node.js; what is built is committed)
	cd console && npm ci --ignore-scripts --loglevel=error && npm run build --silent

.PHONY: types
types: setup ## Write docs/openapi.json, docs/asyncapi.json and the client's generated types: after a change of a model, a code or a table
	$(BIN)/python -m tests.unit.test_openapi_document
	$(BIN)/python -m gre_bridge.devstack.client_types

.PHONY: client
client: ## Build the client and the chat element into client/dist and the package (needs Node.js; what is built is committed)
	cd client && npm ci --ignore-scripts --loglevel=error && npm run build --silent

.PHONY: screenshots
screenshots: setup ## Take the pictures of the console in docs/ (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

.PHONY: test
# Where bytecode is not kept (as in many images), each process of a run would compile anew what it imports.
test: export PYTHONDONTWRITEBYTECODE :=
test: setup ## Run all tests, some at a time (ARGS="-k outbox" runs some; JOBS=0 one after the other)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-versions
test-versions: ## Run a part of the tests with the lowest and with the highest versions that pyproject.toml allows (needs uv)
	sh scripts/test-versions.sh lowest-direct
	sh scripts/test-versions.sh highest

.PHONY: check
check: setup ## Lint, check types, who imports whom, and the manifests of Kubernetes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/kubernetes-validate --strict --quiet --no-warn -k 1.28 deploy/kubernetes/*/*.yaml

.PHONY: fix
fix: setup ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: wheel
wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir dist .

.PHONY: ci
ci: ## Do what CI does on a clean clone
	sh .ci/run

.PHONY: bench
bench: setup $(VENV)/.bench ## Measure the relay side by side with what one would use instead
	$(BIN)/python -m tests.bench $(ARGS)

$(VENV)/.bench: requirements-bench.lock $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

.PHONY: chaos
chaos: setup ## Break everything, one thing after the other, and count (ARGS="--only NAME", "--list", "--write")
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: soak
soak: setup ## Run under load with a fault every few seconds (ARGS="--minutes 60")
	$(BIN)/python -m tests.chaos.soak $(ARGS)

.PHONY: expected
expected: setup ## Write sql/expected.json and sql/schema.sql anew: after each change of sql/migrations
	$(BIN)/python -m gre_bridge.devstack.expected

.PHONY: lock
lock: ## Renew the locks: of a checkout, of the image, of the benchmark (needs uv)
	uv pip compile pyproject.toml --extra dev --extra heic --extra uvloop --extra tracing --group test --group check --group build \
	  --generate-hashes --universal --python-version 3.11 --no-annotate --no-header \
	  --upgrade --quiet -o requirements.lock
	uv pip compile pyproject.toml --extra heic --extra uvloop --group build --constraint requirements.lock --generate-hashes \
	  --universal --python-version 3.11 --no-annotate --no-header --upgrade --quiet -o requirements-runtime.lock
	uv pip compile --group bench --constraint requirements.lock --generate-hashes --universal --python-version 3.11 \
	  --no-annotate --no-header --upgrade --quiet -o requirements-bench.lock

.PHONY: clean
clean: ## Remove .venv and the embedded stack's data
	rm -rf $(VENV) $(VENV)-lowest-direct* $(VENV)-highest* $(DATA)
