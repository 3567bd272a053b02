# The commands of this repository, the same for people and for CI. `make help` lists them.

PYTHON ?= python3
PROFILE ?= default
JOBS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
ARGS ?=
CONFIG ?=
NAME ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Torch's CUDA libraries are pinned by torch itself: left out of the lock, a CPU build of torch can do without them.
# For the same reason the lock has no hashes: pip wants either none or one for everything that it installs, the CUDA
# libraries among them, and a CPU build of torch is another file with another hash. See docs/tried.md.
CUDA := cuda-bindings cuda-pathfinder cuda-toolkit triton $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
	cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink \
	nvshmem-cu13 nvtx)
export OMP_NUM_THREADS ?= 1

.PHONY: help figures smoke compare reference docs check test bench networks benchmark lint lab exercise lock clean
.DEFAULT_GOAL := help

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo
	@echo "JOBS=N      notebooks or tests at a time (here $(JOBS));  PYTHON=python3.12 makes .venv with that Python"
	@echo "PROFILE=P   for figures and docs: default, smoke, imagenet, paper or isic;  CONFIG=\"images=DIR weights=FILE\" sets parameters"
	@echo "            CONFIG=\"... shards=8\" mines the patches of notebook 06 in 8 parts, which a killed run keeps"
	@echo "ARGS=...    goes to pytest (make test), the benchmark (make bench), JupyterLab (make lab, make exercise) or make compare"

# Made when absent and brought up to date when the pins change. A .venv that is already there is kept, whatever torch
# is in it, as long as its version fits.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
		echo "error: Python 3.11 to 3.13 is needed, and $(PYTHON) is `$(PYTHON) --version 2>&1`." \
			"Name another one: make PYTHON=python3.11" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { \
		echo "error: $(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv" >&2; \
		rm -rf $(VENV); exit 1; }
	@echo "Installing into $(VENV): about three minutes and 6 GB with the CUDA libraries, which torch brings along"
	@if [ -t 1 ]; then quiet=; else quiet=--quiet; fi; \
		$(BIN)/python -m pip install $$quiet -r requirements.lock && \
		$(BIN)/python -m pip install $$quiet --no-deps --no-build-isolation --editable . && \
		$(BIN)/python -m pip check
	@touch $@

# Alone in its folder, and nothing goes on when it is interrupted or killed: see runner/workflow.py.
run_notebooks = @exec $(BIN)/python -m absence_utils.runner.workflow $$PPID $(1) $(JOBS) $(CONFIG)

figures: $(READY)  ## make every figure, offline; PROFILE=imagenet for real images
	$(call run_notebooks,$(PROFILE))

smoke: $(READY)  ## run every notebook in its smallest version
	$(call run_notebooks,smoke)

compare: $(READY)  ## say which numbers of the figures moved beyond their tolerance from the reference
	@$(BIN)/python -m absence_utils.runner.compare results/$(PROFILE) $(ARGS)

reference: $(READY)  ## take the numbers and times of results/default as the reference, and the seconds into README.md
	@$(BIN)/python data/make_reference.py
	@$(BIN)/python data/make_measured.py

docs: $(READY)  ## build the pages in results/docs from the results of PROFILE, offline
	@$(BIN)/python docs/build.py --results results/$(PROFILE)

check: $(READY)  ## run the unit tests: no notebook, no browser, under two minutes
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 -m "not notebook and not browser and not slow" $(ARGS)

test: $(READY)  ## run all tests
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 $(ARGS)

lint: $(READY)  ## check style, the order of packages, and that notebooks are stored without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/nbstripout --verify notebooks/*.ipynb notebooks/shards/*.ipynb
	$(BIN)/nbstripout --verify --keep-id notebooks/exercises/*.ipynb

bench: $(READY)  ## measure mining against the bare forward pass and the released scheme (half an hour)
	@$(BIN)/python benchmarks/bench_insertion.py
	@$(BIN)/python benchmarks/bench_mining.py $(ARGS)

networks: $(READY)  ## train the networks on random rules in data/rule_networks/ (an hour on two cores)
	@$(BIN)/snakemake --snakefile cluster/rule_networks.smk --cores $(JOBS)

benchmark: $(READY)  ## run the benchmark on all networks, and renew its tables (an hour on two cores)
	@$(BIN)/snakemake --snakefile cluster/benchmark.smk --cores $(JOBS)

# The whole checkout is the root, since pictures of exercises lie in static/. The folder of settings turns off what
# JupyterLab asks at its first start, whether to fetch news.
LAB := $(BIN)/jupyter lab --ServerApp.root_dir=. --FileContentsManager.preferred_dir=notebooks \
	--LabApp.news_url=None --LabApp.app_settings_dir=notebooks/jupyterlab

lab: $(READY)  ## open JupyterLab on the notebooks; exercises to work on are copied to notebooks/work
	@$(BIN)/python notebooks/exercises/copies.py >/dev/null
	$(LAB) $(ARGS)

exercise: $(READY)  ## open a copy of one exercise, which is never written over: make exercise NAME=01
	@[ -n "$(NAME)" ] || { echo "error: name the exercise, make exercise NAME=01" >&2; exit 1; }
	@copy=$$($(BIN)/python notebooks/exercises/copies.py $(NAME)) && exec $(LAB) $(ARGS) \
		--LabApp.default_url="/lab/tree/notebooks/work/$$(basename "$$copy")"

lock:  ## write requirements.lock anew from pyproject.toml (needs uv, and --default-index if pip uses another one)
	uv pip compile pyproject.toml --extra dev --extra docs --universal --python-version 3.11 --output-file requirements.lock \
		--custom-compile-command "make lock" --quiet $(addprefix --no-emit-package ,$(CUDA)) $(ARGS)

clean:  ## remove results and caches (the environment stays: rm -r .venv)
	rm -rf results .snakemake .pytest_cache .ruff_cache .hypothesis
