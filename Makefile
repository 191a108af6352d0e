# What people do here. Every target makes the environment it needs: .venv in this folder.
PYTHON ?= python3
BIN := .venv/bin
QUESTION ?= Where are fetched models kept?
ASK_LIBRARY := build/docs.library

.PHONY: help ask test quick lint format bench clean

help:
	@echo "make ask      set up, then answer a question about this project's documentation (QUESTION=... asks another)"
	@echo "make test     set up, then lint, type check and run every test"
	@echo "make quick    the tests that take seconds"
	@echo "make lint     style and types      make format   mend the style"
	@echo "make bench    every benchmark in its quick form: a hint, not a figure"
	@echo "make clean    remove .venv and what was built"

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Longreach needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.developing: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

ask: .venv/.installed
	@$(BIN)/longreach models fetch
	@echo '$$ longreach ask "$(QUESTION)" docs'
	@$(BIN)/longreach ask --library $(ASK_LIBRARY) "$(QUESTION)" docs

test: lint
	$(BIN)/pytest -n 2

quick: .venv/.developing
	$(BIN)/pytest -m "not thorough"

lint: .venv/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.developing
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.developing
	@for file in bench/*.py; do case $$file in bench/harness.py|bench/gemma.py|bench/frontier_kvpress.py) ;; *) $(BIN)/python $$file --quick || exit 1 ;; esac; done

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
