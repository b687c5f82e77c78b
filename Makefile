# make run    set up and show the product on two real networks
# make test   set up and run all tests
# make check  format, lint, types, import layers (no tests)
# make fuzz   hostile files against every reader; FUZZ="--executions 1000000 --seconds 36000" for a long run
# make bench  timings, as ratios within one run
# make bench-detection  how well broken layers are told from healthy changes

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The current folder must not shadow installed packages: our folders are called daemon, config, ...
export PYTHONSAFEPATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test check fuzz bench bench-detection golden format clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev]'
	touch $@

run: $(VENV)/.installed
	$(BIN)/layerwatch demo

# A file of tests stays with one process, for what its tests share; files begin in the order of their names, because
# the longest are in tests/acceptance. Processes side by side need no threads of their own.
test: $(VENV)/.installed-dev
	PYTHON=$(PYTHON) tests/install-servers.sh
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.src $(BIN)/lint-imports

# Without atheris, which has no wheels for some systems, inputs are random mutations.
fuzz: $(VENV)/.installed-dev
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --only-binary :all: atheris
	$(BIN)/python tests/fuzz/run.py $(FUZZ)

bench: $(VENV)/.installed-dev
	$(BIN)/python tests/bench/bench.py

bench-detection: $(VENV)/.installed-dev
	$(BIN)/python tests/bench/detection/bench_detection.py

golden: $(VENV)/.installed-dev
	LAYERWATCH_UPDATE_GOLDEN=1 $(BIN)/pytest tests/golden
	$(BIN)/pytest tests/golden

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-bench .venv-servers bench.json .bench-detection bench-detection.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
