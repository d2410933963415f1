# Every verb sets up .venv first, if it is missing or a pyproject.toml has changed since.
# name=value words on the command line go to Hydra unchanged (quote [lists] and {dicts} for your shell):
#     make train pkg=lensfind +experiment=vit_nnpu trainer.epochs=3 'model.widths=[64,128]'

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/python -m skyloom.launch
STAMP  := $(VENV)/.installed
MANIFESTS := pyproject.toml constraints.txt shared/pyproject.toml $(sort $(wildcard packages/*/pyproject.toml))

# Make keeps what was typed in MAKEOVERRIDES; the launcher reads it from the environment, where no shell can bend it.
export SKYLOOM_OVERRIDES = $(MAKEOVERRIDES)
# Two busy threads on two cores are far slower than one for small operations (training measures and chooses by itself).
export OMP_NUM_THREADS ?= 1

LAUNCHED := train analyse evaluate predict report export sweep runs ls config rerun new bench \
            prepare look select candidates explain golden inspect embed compare beside extract similar explore
.PHONY: help setup $(LAUNCHED) test test-all test-gpu lint format docs wheels clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk '/^[a-z][a-z-]*:.*## / {name = $$0; sub(/:.*/, "", name); sub(/.*## */, ""); printf "  make %-10s %s\n", name, $$0}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## the environment in .venv; extras=bench adds the peers of `make bench`, extras=all everything
ifneq ($(extras),)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(extras)]' -e ./shared $(foreach p,$(wildcard packages/*),-e ./$(p))
endif

# The manifests' content and the set of packages decide, not their dates: a fresh checkout does not reinstall.
FINGERPRINT := $(shell cat $(MANIFESTS) 2>/dev/null | cksum | tr ' ' '-')
$(STAMP): $(VENV)/.fingerprint-$(FINGERPRINT)
	@touch $@

$(VENV)/.fingerprint-%:
	@test -x $(BIN)/python || { echo "creating $(VENV) (a few minutes, once)"; $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]' -e ./shared $(foreach p,$(wildcard packages/*),-e ./$(p))
	@rm -f $(VENV)/.fingerprint-*
	@touch $@

train: $(STAMP)    ## train pkg=<package> [+experiment=<name>] [key=value …]; run=<directory> resumes
prepare: $(STAMP)  ## write a package's data to disk: pkg=… [argument=value …]
look: $(STAMP)     ## a page of what the network will see: pkg=… [data=…]
evaluate: $(STAMP) ## score a run's best weights on its test split again: run=<directory or part of its name>
predict: $(STAMP)  ## apply a run's best weights to new data: run=… input=<file>
select: $(STAMP)   ## what to label next, chosen by a run: run=… [n=…]
candidates: $(STAMP) ## ranked, de-duplicated finds of a run: run=…
explain: $(STAMP)  ## where a finder looks, tested by deletion: run=…
inspect: $(STAMP)  ## a checkpoint on a split: loss terms, flux factors, worst rows: run=…
embed: $(STAMP)    ## embeddings of a run's own maps, for the second pipeline: run=…
compare: $(STAMP)  ## a run beside an ensemble of perceptrons, and what either leans on: run=…
beside: $(STAMP)   ## one run's densities less another's, row by row: run=… other=…
extract: $(STAMP)  ## embeddings of images by a network: pkg=… network=… images=… output=…
similar: $(STAMP)  ## what is like these objects: run=… objects=[…]
explore: $(STAMP)  ## the interactive page of a run: run=…
golden: $(STAMP)   ## a package's known cases, computed and compared: pkg=…
report: $(STAMP)   ## write a run's HTML page: run=…; many runs in one page and table: group=<experiment or sweep>
export: $(STAMP)   ## write a run's best weights as one portable graph, checked: run=… [format=pt2|torchscript|onnx]
sweep: $(STAMP)    ## many runs, chosen by Optuna: pkg=… +experiment=… sweep=…, or plainly seed=1,2,3
runs: $(STAMP)     ## past runs, newest first; pkg=<package> filters
ls: $(STAMP)       ## a package's experiments, what each shows, and its goals: pkg=…
config: $(STAMP)   ## the resolved configuration and every choice of every group: pkg=… [key=value …]
rerun: $(STAMP)    ## repeat a run from its own record and compare the metrics: run=…
bench: $(STAMP)    ## measure against peers: name=<benchmark>; without a name, list them
new: $(STAMP)      ## write a working package to start from: pkg=<name>

$(LAUNCHED):
	@$(RUN) $@
analyse: $(STAMP)
# a verb that only one package has, or a typing error: the launcher knows
.DEFAULT: ; @$(RUN) $@

test: $(STAMP)     ## everything that needs no GPU and no patience
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not gpu' $(args)
test-all: $(STAMP) ## the slow tests too
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not gpu' --hypothesis-profile=default $(args)
test-gpu: $(STAMP) ## those that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(args)
lint: $(STAMP)     ## ruff, mypy and the import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy shared/src packages/*/src
	$(BIN)/python -m pytest -q tests/launch/test_imports.py
format: $(STAMP)   ## let ruff mend what it can
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .
docs: $(STAMP)     ## rewrite the generated parts of README.md and docs/
	@$(RUN) docs
wheels: $(STAMP)   ## the six distributions, in dist/
	@for d in shared packages/*; do $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist ./$$d || exit 1; done; ls dist
clean:  ## caches and build products; runs/ is kept
	rm -rf dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name '*.egg-info' \) -type d -print | xargs rm -rf
