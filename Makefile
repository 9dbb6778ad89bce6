# One command each for a newcomer: `make demo` and `make test` set up by themselves what they need.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test integration places stress bench lint audit man docs build clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## make .venv with everything that demo and test need (PYTHON=python3.12 chooses the interpreter)
	@PYTHON="$(PYTHON)" scripts/setup.sh

demo: setup ## serve a small repository, mount it, train on it, and print what it cost
	@$(BIN)/dagfs demo

test: setup ## run all tests, real mounts included (DAGFS_TEST_WITHOUT_FUSE=1 leaves the mounts out)
	@if [ -e /dev/fuse ]; then $(BIN)/python -m pytest -n 4 --dist loadfile; \
	elif [ "$$DAGFS_TEST_WITHOUT_FUSE" = 1 ]; then echo "no /dev/fuse: the mount tests are left out"; \
	  $(BIN)/python -m pytest -n 4 --dist loadfile -m "not mount and not stress and not integration"; \
	else echo "no /dev/fuse: the mount tests cannot run; DAGFS_TEST_WITHOUT_FUSE=1 make test leaves them out" >&2; \
	  exit 1; fi

integration: setup ## TensorFlow, torchrun, libraries, notebooks, benchmarks, several machines; installs 2 GB
	@scripts/integrations.sh
	@$(BIN)/python -m pytest -m integration -n 2 --dist loadfile

places: setup ## as root: the units on a booted systemd, the Dockerfile's steps in a bare root
	@$(BIN)/python -m pytest -m stress tests/deploy/test_booted_systemd.py
	@scripts/try-dockerfile.sh

stress: setup ## run the tests that take minutes: kills, faults and hostile hubs under load; prints figures
	@$(BIN)/python -m pytest -m stress -rP --timeout 3600

bench: setup ## run the benchmarks, renew tables and charts (PARTS="cold fio": only these; SIZE=quick: just print)
	@scripts/bench.sh --size "$(or $(SIZE),full)" $(PARTS)

lint: setup ## ruff, mypy --strict, and the linters of the shell scripts and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck --external-sources scripts/*.sh .ci/run
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

audit: setup ## bandit over the code, pip-audit over the packages that dagfs needs
	@$(BIN)/python scripts/audit.py

man: setup ## write the manual pages anew from the help of the commands
	@$(BIN)/python scripts/manual.py

docs: setup ## build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site

build: setup ## build wheel and sdist, and run the wheel from an empty environment
	@scripts/build.sh

clean: ## remove .venv and everything that was built or cached here
	rm -rf $(VENV) build dist site runs .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
