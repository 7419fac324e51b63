# Everything a developer or CI runs. Needs Python 3.11 or newer and make; the rest is installed into .venv.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin

.PHONY: run test compiled test-compiled simulate chaos faults soak check lock bench bench-scale behaviours conformance autobahn fuzz clean

run: .venv/installed-run ## a gateway with everything it needs, and a key to try it
	@exec $(BIN)/ostiary up $(ARGS)

# Tests wait for servers about as long as they compute: two processes more than there are cores. Their databases, some
# gigabytes in all, are made in memory where there is room.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 2 )))
ROOM_KB := 6000000
SCRATCH := $(shell df -Pk /dev/shm 2>/dev/null | awk -v room=$(ROOM_KB) 'NR == 2 && $$4 > room {print "TMPDIR=/dev/shm"}')
# Each process would compile all again where the environment forbids bytecode to be written, as images of Python do.
test test-compiled: export PYTHONDONTWRITEBYTECODE =
test: .venv/installed-dev .venv/installed-prometheus ## the whole suite, in a few processes; each has servers of its own
	$(SCRATCH) $(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

# A copy of the tree, the modules of the warm path in it built as C (setup.py): the same tests, of the same sources.
COMPILED := build/compiled
compiled: .venv/installed-dev .venv/installed-prometheus ## the tree with its warm path compiled, in build/compiled; needs a C compiler
	rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t $(COMPILED)
	cd $(COMPILED) && OSTIARY_COMPILE=1 $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace

test-compiled: compiled ## the suite, of the compiled tree
	cd $(COMPILED) && $(SCRATCH) PYTHONPATH=$(CURDIR)/$(COMPILED) $(CURDIR)/$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

STEPS ?= 1000000
simulate: .venv/installed-dev ## the rule of docs/consistency.md in simulated time, at length; a few minutes
	$(BIN)/python -m tests.simulate --steps $(STEPS) $(ARGS)

CHANGES ?= 10000
chaos: .venv/installed-dev ## the promise of docs/consistency.md under real faults; half an hour
	$(BIN)/python -m tests.chaos --changes $(CHANGES) $(ARGS)

faults: .venv/installed-dev ## every part hurt, one at a time, under traffic: writes docs/faults.md; ten minutes, Linux
	$(SCRATCH) $(BIN)/python -m tests.faults $(ARGS)

soak: .venv/installed-dev ## half an hour of everything at once; nothing may stay behind
	$(BIN)/python -m tests.soak $(ARGS)

check: .venv/installed-dev ## style, types, direction of imports, what is known to be unsafe
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive gateway
	$(BIN)/python -m tests.audit locks/dev.txt locks/httpbin.txt locks/fuzz.txt

# What stands in the locks stays until it is asked for: `make lock ARGS=--upgrade`. dev.txt is made first, the rest agrees.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-build --system-certs \
	--no-emit-index-url --custom-compile-command 'make lock'
lock: .venv/installed-dev ## what is installed, and by whom it is wanted, pinned by hash: all of locks/, from pyproject.toml
	$(LOCK) $(ARGS) --extra embedded --extra otel --extra dev --group compile -o locks/dev.txt pyproject.toml
	$(LOCK) -c locks/dev.txt --extra embedded --group build -o locks/up.txt pyproject.toml
	$(LOCK) -c locks/dev.txt --extra otel -o locks/serve.txt pyproject.toml
	$(LOCK) -c locks/dev.txt --group compile -o locks/compile.txt
	$(LOCK) -c locks/dev.txt $(ARGS) --group fuzz -o locks/fuzz.txt
	$(LOCK) --no-deps --group httpbin -o locks/httpbin.txt

bench: .venv/installed-bench $(if $(shell command -v cc),compiled) ## microseconds per request, beside other gateways where they can be had; half an hour
	$(BIN)/python -m bench $(ARGS)

bench-scale: .venv/installed-dev ## ten million keys, a million shared entries, fifty thousand connections, a thousand tenants, many nodes; half an hour, 15 GB in TMPDIR
	$(BIN)/python -m bench scale $(ARGS)

behaviours: .venv/installed-bench ## what other proxies do with doubtful HTTP: the table of docs/http.md, where all are installed
	$(BIN)/python -m bench behaviours $(ARGS)

CORPUS ?= ../shared/corpus
conformance: .venv/installed-dev ## a corpus of raw HTTP cases from elsewhere, with its own runners
	$(BIN)/python -m tests.conformance.corpus $(CORPUS)

autobahn: .venv/installed-dev ## all cases of the Autobahn WebSocket suite, with and without the gateway; a quarter of an hour
	$(BIN)/python -m tests.conformance.websocket.autobahn

MINUTES ?= 20
fuzz: .venv/installed-fuzz ## coverage-guided fuzzing of every parser; what it finds is kept and replayed by `make test`
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(TARGETS)

clean: ## all that was installed or built here; stop `make run` first, its data goes too
	rm -rf .venv .ostiary build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make virtual environments (on Debian: apt install python3-venv)" >&2; exit 1; }

# Nothing is installed whose hash is not in locks/ (`make lock`), setuptools included, which builds the package, and warns
# of every editable installation. What runs needs less than what is tested; the stamps are renewed when the locks change.
INSTALL := $(BIN)/python -m pip install --quiet
ITSELF := --no-deps --no-build-isolation -e .
.venv/installed-run: pyproject.toml locks/up.txt .venv/bin/python
	$(INSTALL) --require-hashes -r locks/up.txt
	PYTHONWARNINGS=ignore $(INSTALL) $(ITSELF)
	@touch $@

.venv/installed-dev: pyproject.toml locks/dev.txt locks/httpbin.txt tests/browser/package-lock.json .venv/bin/python
	$(INSTALL) --require-hashes -r locks/dev.txt
	$(INSTALL) --require-hashes --no-deps -r locks/httpbin.txt
	PYTHONWARNINGS=ignore $(INSTALL) $(ITSELF)
	$(BIN)/python -m tests.browser.install
	@touch $@ .venv/installed-run

# For the tests of the alerts and of a real scrape: one that is installed, or Debian's and Ubuntu's package, unpacked.
.venv/installed-prometheus: tests/prometheus/install.sh .venv/bin/python
	command -v promtool > /dev/null && command -v prometheus > /dev/null \
		|| sh tests/prometheus/install.sh $(CURDIR)/.venv/prometheus \
		|| echo "Prometheus cannot be brought here: install it, or tests will fail that need it" >&2
	@touch $@

# Peers that cannot be had here are rows that say so; nginx, HAProxy and wrk come from the system (bench/README.md).
EXPRESS_GATEWAY := express-gateway@1.16.11
.venv/installed-bench: pyproject.toml .venv/installed-dev
	if command -v npm > /dev/null; then \
		npm install --prefix .venv/bench --no-audit --no-fund --loglevel=error $(EXPRESS_GATEWAY) \
			|| echo "Express Gateway is not to be had here" >&2; \
	else echo "no npm: Express Gateway is not installed" >&2; fi
	@touch $@

.venv/installed-fuzz: locks/fuzz.txt .venv/installed-dev
	$(INSTALL) --require-hashes -r locks/fuzz.txt
	@touch $@
