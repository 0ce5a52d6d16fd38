# Two commands do all the set-up: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

CLIENTS := .clients

.PHONY: demo example quick test wheel lint type clients bench bench-server bench-reports test-slow torture test-duckdb15 docs generate notebooks clean

# The page over a real shop's events, and live ones until Ctrl-C; ARGS="--port 9000 --for 60".
demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py $(ARGS)

# A month of that shop, each number checked against plain SQL on the CSV file.
example: $(VENV)/.ready
	$(BIN)/python examples/online_retail.py $(ARGS)

# The unit tier: what one file promises, without other processes. About a minute on two cores. Three processes keep two
# cores busy while tests wait for disks, browsers and clocks: two need a fifth more time.
quick: $(VENV)/.ready
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not slow and not integration"

test: lint type $(VENV)/.ready
	$(BIN)/pip check
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The built wheel in a clean environment, without extras and with all of them.
wheel: $(VENV)/.ready
	scripts/test-wheel

lint: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: $(VENV)/.ready
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py

test-slow: $(VENV)/.ready
	$(BIN)/pytest -m slow --numprocesses 2 --dist load -o faulthandler_timeout=1500

# The real clients that tests drive, from their registries, each in an environment of its own. Without them `make test`
# skips those tests and says so.
clients: $(CLIENTS)/.ready

$(CLIENTS)/.ready: $(wildcard tests/clients/requirements*.txt) tests/clients/package.json
	$(PYTHON) -m venv $(CLIENTS)/py
	$(CLIENTS)/py/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)/legacy
	$(CLIENTS)/legacy/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements-legacy.txt
	cp tests/clients/package.json $(CLIENTS)/
	cd $(CLIENTS) && npm install --no-audit --no-fund --no-package-lock --loglevel=error
	touch $@

# Thirty minutes of deaths, disk faults and everything at once (docs/testing.md); ARGS="--minutes 5 --seed 7".
torture: $(VENV)/.ready
	$(BIN)/python -m tests.crash.torture $(ARGS)

# The oldest DuckDB that we support, in an environment of its own (docs/decisions/0001).
test-duckdb15:
	$(PYTHON) -m venv $(VENV)-duckdb15
	sed 's/^duckdb==.*/duckdb==1.5.5/' constraints.txt > $(VENV)-duckdb15/constraints.txt
	$(VENV)-duckdb15/bin/pip install --quiet --disable-pip-version-check -c $(VENV)-duckdb15/constraints.txt -e '.[dev]'
	$(VENV)-duckdb15/bin/pytest

# Under ten minutes on two quiet cores. A peer that cannot be installed is shown as absent.
bench: $(VENV)/.bench
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-server; } \
	  || echo "No redis-server here: its cells will say absent. On Debian, as root: apt-get install redis-server"
	$(BIN)/python -m bench

# The server and the page: events over HTTP, many tenants, a cold load. Drives them with wrk and Chromium.
bench-server: $(VENV)/.ready
	@command -v wrk >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y --no-install-recommends wrk; } \
	  || echo "No wrk here: its cells will say absent. On Debian, as root: apt-get install wrk"
	$(BIN)/python -m bench http page --section server --json bench/results/server.json $(ARGS)

# Funnel, retention and sessions over ten million events, beside DuckDB and chDB: six minutes and 3 GB of disk.
bench-reports: $(VENV)/.bench
	$(BIN)/python -m bench reports --size 10 --runs 3 --section reports --json bench/results/reports.json $(ARGS)

# The documentation as a site with search, in build/site; to read it: python3 -m http.server -d build/site
docs: $(VENV)-docs/.ready
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet
	$(VENV)-docs/bin/python -m docs.generate.offline build/site

# The parts of the documentation that come from the source: settings, commands, reports, templates …
generate: $(VENV)/.ready
	$(BIN)/python -m docs.generate

notebooks: $(VENV)/.ready
	$(BIN)/python -m docs.generate.notebooks

# The extra `docs` alone, without Lakebed: the site is made of text.
$(VENV)-docs/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
	  > $(VENV)-docs/requirements.txt
	$(VENV)-docs/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r $(VENV)-docs/requirements.txt
	touch $@

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lakebed needs Python 3.11 or newer; say PYTHON=python3.12 make …")'
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-docs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
