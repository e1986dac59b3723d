# The front door. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check bench web clean

demo: $(VENV)/.ready
	$(BIN)/recuerdo demo

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --jaxtyping-packages=recuerdo.read,beartype.beartype

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.ready-test
	$(BIN)/python benchmarks/read.py --quick
	$(BIN)/python benchmarks/look.py --quick
	$(BIN)/python benchmarks/steer.py --quick
	$(BIN)/python benchmarks/truth.py --quick
	$(BIN)/python benchmarks/memory.py --quick
	$(BIN)/python benchmarks/store.py --quick
	$(BIN)/python benchmarks/finds.py --quick
	$(BIN)/python benchmarks/answers.py --quick
	$(BIN)/python benchmarks/translate.py --quick
	$(BIN)/python benchmarks/pictures.py --quick

web:
	cd web && npm ci && npm run build

# torch first and by its exact version: a plain `torch` can bring gigabytes of CUDA along.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "recuerdo needs Python 3.11 or newer: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[png]'
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache dist
