# Two commands do all the set-up: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint type bench test-slow notebooks clean

demo: $(VENV)/.ready
	$(BIN)/python examples/online_retail.py

test: lint type $(VENV)/.ready
	$(BIN)/pip check
	$(BIN)/pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: $(VENV)/.ready
	$(BIN)/mypy

test-slow: $(VENV)/.ready
	$(BIN)/pytest -m slow

bench: $(VENV)/.ready
	$(BIN)/python -m bench

notebooks: $(VENV)/.ready
	$(BIN)/python docs/notebooks/execute.py

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lakebed needs Python 3.11 or newer; say PYTHON=python3.12 make …")'
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
