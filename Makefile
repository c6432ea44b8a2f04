# Everything starts here: `make train` and `make test` need only Python 3.11-3.13 (with venv) and make.

VENV   := .venv
PY     := $(VENV)/bin/python
FOUND  := $(shell for p in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
            $$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
ARGS   ?= loss=mse model=linear
# Unit tests run in parallel. Integration tests start processes of their own, so two run at a time, after the others.
SPREAD ?= -n auto --maxprocesses 4 --dist worksteal
PAIRED ?= -n 2 --dist loadfile
STARTS := tests/integration
PARALLEL = $(PY) -m pytest $(SPREAD) $(addprefix --ignore=,$(STARTS))
PROCESSES = $(PY) -m pytest $(PAIRED) $(STARTS)
# The tests start hundreds of processes, which would each compile losslab anew.
test slow all: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help train test slow all lint check soak format lock clean

help:
	@echo "make train [ARGS='model=cifar_cnn loss=focal']   train (the three-point regression unless told otherwise)"
	@echo "make test                                        the quick tests"
	@echo "make check                                       everything: ruff, mypy, import-linter, quick and slow tests"
	@echo "make soak [SOAK='--only kills']                  the campaigns of docs/reliability.md, which take hours"
	@echo "make format | lock | clean                       format the code | renew requirements.lock | remove .venv"

# The first call installs what requirements.lock pins (about 6 GB on Linux, of which CUDA is most); later calls skip it.
$(VENV)/.locked: requirements.lock
	@test -n "$(FOUND)" || { echo "losslab needs Python 3.11, 3.12 or 3.13: install one, or name it with 'make PYTHON=/path/to/python3.12'"; exit 1; }
	$(FOUND) -m venv --clear $(VENV)
	$(PY) -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	$(PY) -m pip install --disable-pip-version-check --no-deps --quiet --editable .
	@touch $@

train: $(VENV)/.installed
	@$(PY) train.py $(ARGS)

test: $(VENV)/.installed
	$(PARALLEL) -m "not slow"
	$(PROCESSES) -m "not slow"

slow: $(VENV)/.installed
	$(PARALLEL) -m slow
	$(PROCESSES) -m slow

lint: $(VENV)/.installed
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

# What test and slow run, in two sessions of pytest rather than four: collecting the tests takes half a minute.
all: $(VENV)/.installed
	$(PARALLEL)
	$(PROCESSES)

check: lint all

# Takes hours: hundreds of kills, signals and requeues. It can be interrupted and continues. For less: SOAK='--only saves kills --scale 0.1'.
soak: $(VENV)/.installed
	cd tests && OMP_NUM_THREADS=1 ../$(PY) -m soak $(SOAK)

format: $(VENV)/.installed
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format

lock: $(VENV)/.installed
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV)
