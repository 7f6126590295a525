# Two commands on a fresh machine: `make demo` (set up, run the main job) and `make test` (set up, test).
# Both make one virtual environment once and work offline afterwards.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.PHONY: demo test test-slow lint install system-packages clean

demo: $(READY)
	$(BIN)/hwnas demo examples

# Every test but those marked slow.
test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hwnas: the pinned set needs Python 3.11 or newer, this is %d.%d; use make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $(READY)

# Debian packages that some tests need; those tests are skipped without them (and fail with CI=true).
system-packages:
	bash .ci/system-packages

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
