# Every target sets up what it needs; nothing has to be installed by hand but Python 3.11 or later.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SCHOOLHOUSE := src/vivavoce/schoolhouse/weights
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false
# Where it is set, every process compiles all that it imports anew, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-slow check lint types docs bench schoolhouse clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"
	touch $@

demo: setup $(SCHOOLHOUSE)/cyd  ## the whole story on the schoolhouse: runs/demo/results.json and report.html
	$(BIN)/viva run recipes/schoolhouse/demo.yaml --out runs/demo

test: setup  ## the tests, less those that train for minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup  ## those that train for minutes
	$(BIN)/python -m pytest -m slow

check: lint types test  ## what a change must pass

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/make_cli.py --check

types: setup
	$(BIN)/pyright

docs: setup  ## docs/cli.md from --help
	$(BIN)/python docs/make_cli.py

bench: setup  ## speed, side by side with what people use today
	$(BIN)/viva bench debate
	$(BIN)/viva bench engine
	$(BIN)/viva bench generate
	$(BIN)/viva bench sft
	$(BIN)/viva bench tree-dpo --shape 1x1 --shape 2x2 --shape 3x3
	$(BIN)/viva bench on-policy
	$(BIN)/viva bench scaling

# Trained once from nothing, where the models do not lie in the package yet.
$(SCHOOLHOUSE)/cyd: | setup
	$(BIN)/python -m schoolhouse.build --out build/schoolhouse
	mkdir -p $(SCHOOLHOUSE)
	for name in ada bob cyd student; do cp -r build/schoolhouse/$$name $(SCHOOLHOUSE)/; done

schoolhouse: setup  ## train the schoolhouse's models again
	$(BIN)/python -m schoolhouse.build --out build/schoolhouse

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
