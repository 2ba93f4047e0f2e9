# The two to begin with: "make demo" starts a complete server, "make test" runs every test.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env dev demo test check format bench ha nodes soak simulate mutants docs lock clean

# What was compiled is kept: the tests are many processes, and each would compile the same modules anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON := .venv/bin/python

help: ## List the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' $(MAKEFILE_LIST) | expand -t 9

env: ## Create .venv from the hash-locked requirements, so that .venv/bin/strongroom runs
	@scripts/setup.sh runtime

dev:
	@scripts/setup.sh dev

demo: env ## Start a complete server with customers, money and a past (DEMO="--port 0" adds options)
	@exec .venv/bin/strongroom demo $(DEMO)

test: dev ## Install what the tests need and run them all (TESTS="tests/unit -k nonce" chooses)
	@$(PYTHON) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

check: dev ## The quick gates: style, types, the arrows between the rooms
	@scripts/check.sh

format: dev ## Put the code into the house's format
	@$(PYTHON) -m ruff check --fix src tests bench
	@$(PYTHON) -m ruff format src tests bench

bench: dev ## Measure our speed beside nginx, pgbench and a FastAPI peer, and print a table (BENCH adds options)
	@scripts/setup-bench.sh
	@$(PYTHON) bench/run.py $(BENCH)

ha: dev ## Fail over: kill and cut a replicated database and its servers under load (HA="--rounds 3", HA=--async)
	@scripts/setup-ha.sh
	@exec env PYTHONPATH=src:tests $(PYTHON) -m support.ha_run $(HA)

nodes: ## Install the chain nodes that the tests and "demo --chains" run into .nodes
	@scripts/get-nodes.sh

soak: dev ## What is too long for every day: many more examples and every test marked soak
	@HYPOTHESIS_PROFILE=soak $(PYTHON) -m pytest -m "soak or property or simulation or crash" --timeout 3600 $(TESTS)

simulate: dev ## Play random seeds of the whole server in one process (SEEDS=5000 how many, SEED=123 that one)
	@PYTHONPATH=src:tests $(PYTHON) -m support.simulation_runs $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

mutants: dev ## Make each small mistake in what keeps the money and see a test notice (MUTANTS="money.py --write")
	@$(PYTHON) scripts/mutants.py $(MUTANTS)

docs: dev ## Write docs/reference anew from the code
	@$(PYTHON) scripts/generate_docs.py

lock: dev ## Write the locks anew from pyproject.toml (LOCK=--upgrade moves to the newest versions)
	@scripts/lock.sh $(LOCK)

clean: ## Remove .venv, .nodes and every cache
	@rm -rf .venv .venv-bench .venv-ha .nodes .pytest_cache .ruff_cache .hypothesis .import_linter_cache
