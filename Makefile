# Every target sets up what it needs; nothing has to be installed by hand but Python 3.11 or later.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: setup demo test check lint types docs bench schoolhouse clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup  ## the whole story on the schoolhouse: runs/demo/results.json and report.html
	$(BIN)/viva run recipes/schoolhouse/demo.yaml --out runs/demo

test: setup  ## the tests
	$(BIN)/python -m pytest

check: lint types test  ## what a change must pass

lint: setup
	$(BIN)/ruff check .
	$(BIN)/python docs/make_cli.py --check

types: setup
	$(BIN)/pyright

docs: setup  ## docs/cli.md from --help
	$(BIN)/python docs/make_cli.py

bench: setup  ## speed, side by side with what people use today
	$(BIN)/viva bench debate
	$(BIN)/viva bench tree-dpo

schoolhouse: setup  ## train the schoolhouse's models again (about an hour on two cores)
	$(BIN)/python -m vivavoce.schoolhouse.build --out build/schoolhouse

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
