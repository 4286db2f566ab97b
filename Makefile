# `make lab` opens the first lesson, `make test` runs every check. Either sets up what it needs in .venv,
# from a Python, make and a package registry alone. A second run finds it there and asks no registry.

PYTHON ?= python3
WORKERS ?= 2
TIMES ?= 1
CASES ?= 10000
RANDOM_TESTS ?= tests/property
LESSONS ?= $(wildcard lessons/*.ipynb)

PY := .venv/bin/python
# Holds the path of this folder: the installed package would still point to where it was.
STAMP := .venv/set-up-for-layerlab
BEGAN := $(shell date +%s)

# Another environment that happens to be active must not leak into this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER

.DEFAULT_GOAL := help
.PHONY: help lab test outputs browser-tests random-tests bench screenshots clean moved

help:
	@echo "make lab       open the first lesson in JupyterLab (the first time, this sets up .venv)"
	@echo "make test      run every check: style, types, tests, the lessons, the lessons in a browser"
	@echo "make browser-tests TIMES=10   run the browser tests that often, and sum up"
	@echo "make random-tests CASES=10000   run the property tests with that many random cases each"
	@echo "make bench     measure what the ledger and the views cost, into results/benchmarks.json"
	@echo "make outputs   run the lessons and store their outputs (LESSONS=lessons/01_….ipynb: only that one)"
	@echo "make screenshots   make the README's pictures anew (SCENES=predict.png: only that one)"
	@echo "make clean     remove .venv and what the checks left behind"
	@echo
	@echo "PYTHON=python3.12 make lab   sets up with that Python (3.10 or newer)"

lab: $(STAMP)
	@$(PY) -m layerlab.cli lab

# Every part runs, also after one failed. pytest comes last: its closing line sums up all tests.
test: $(STAMP)
	@failed=; \
	part() { \
	  echo "== $$*"; start=$$(date +%s); \
	  if $(PY) -m "$$@"; then said=passed; else said=FAILED; failed="$$failed, $$*"; fi; \
	  echo "== $$*: $$said in $$(($$(date +%s) - start)) s"; \
	}; \
	part ruff check; \
	part ruff format --check; \
	part mypy; \
	LAYERLAB_TESTS_BEGAN=$(BEGAN) $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  --nbval --nbval-current-env --nbval-cell-timeout=120 \
	  tests/browser lessons tests/notebooks tests/unit tests/property || failed="$$failed, pytest"; \
	if [ -n "$$failed" ]; then echo "FAILED: $${failed#, }" >&2; exit 1; fi

outputs: $(STAMP)
	@$(PY) tools/store_outputs.py $(LESSONS)

# Is a browser test reliable? One that fails now and then shows only in many runs.
browser-tests: $(STAMP)
	@$(PY) tools/repeat_tests.py --times $(TIMES)

# `make test` draws 200 cases a test, the same each time; this draws new ones, and sums up.
random-tests: $(STAMP)
	@LAYERLAB_CASES=$(CASES) $(PY) -m pytest -n $(WORKERS) --hypothesis-show-statistics $(RANDOM_TESTS)

# On a machine with nothing else to do. BENCH="watch_growth import_time": only these.
bench: $(STAMP)
	@$(PY) benchmarks/run_all.py $(if $(BENCH),--only $(BENCH))

screenshots: $(STAMP)
	@$(PY) tools/screenshots.py $(SCENES)

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One locked set for all targets. uv sorts out 5 GB in parallel; compiled once, imports are fast ever after.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON). Install Python 3.10 or newer, or say which one: make lab PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "layerlab needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Install a newer one, or say which one: make lab PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) comes without venv. On Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@$(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	UV_COMPILE_BYTECODE=1 $(PY) -m uv pip install --python $(PY) --require-hashes -r requirements.lock
	$(PY) -m uv pip install --python $(PY) --quiet --no-deps --editable .
	@pwd > $(STAMP)
	@echo "Set up in $$(($$(date +%s) - $(BEGAN))) s."

ifneq ($(shell cat $(STAMP) 2>/dev/null),$(shell pwd))
$(STAMP): moved
endif
ifneq ($(shell $(PY) -c 'print(1)' 2>/dev/null),1)
$(STAMP): moved
endif
