# make demo        data, shards, training, evaluation and report on this machine, from nothing
# make test        ruff, mypy, the check of words, all tests that need no GPU
# make test-fast   tests that are neither slow nor start Ray, several ranks or SLURM
#
# They set up .venv first (about a minute, most of it downloads). Settings:
#   PYTHON=python3.11           the interpreter that makes .venv
#   VENV=.venv                  where it is made; VENV=/elsewhere keeps one environment for several clones
#   TORCH_INDEX=URL             where torch comes from. PyPI's torch for Linux brings CUDA with it (3 GB); on a machine
#                               without a GPU https://download.pytorch.org/whl/cpu is much smaller.
#   TESTERS=2                   processes that run tests; 0 runs them in one, as pytest itself does
#   ATTN_JOBS=4                 (env-gpu) compilers at once for flash-attn
#   GPU_PYTHON=3.12             (gpu-wheels) the Python of the machine with the GPU
#   DATA=/path                  (demo-davis) the folder that holds DAVIS17/, or DAVIS17 itself

PYTHON ?= python3.11
VENV ?= .venv
TORCH_INDEX ?=
PYTEST ?= -q
TESTERS ?= 2
GPU_PYTHON ?= 3.12

# Where deepspeed's setup sees a GPU it asks nvcc for its version, and ends where there is none; sam2's looks too.
NO_GPU := CUDA_VISIBLE_DEVICES= DS_ACCELERATOR=cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# -qq: pip warns about every package that is missing from one of several indexes. Errors are still printed.
INSTALL := $(PIP) install -qq --no-compile
STAMP := $(VENV)/installed
GLUS := $(BIN)/glus
FOLDERS := common data_pipeline model training evaluation launch demo
CODE := $(wildcard $(FOLDERS) tests benchmarks examples setup.py)

# Where this is set (container images often do), each process would compile its libraries again: ten seconds each.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help env env-gpu env-page demo demo-short demo-looks demo-davis study test test-fast lint types unit-tests gpu-wheels clean

help:
	@sed -n '/^# make/s/^# //p' Makefile
	@echo "more: env, env-gpu, env-page, lint, types, unit-tests, demo-short, demo-looks, study, demo-davis DATA=FOLDER, gpu-wheels, clean"

env: $(STAMP)

$(STAMP): $(wildcard requirements/*) pyproject.toml setup.py
	@command -v $(PYTHON) >/dev/null || { echo "make env: no $(PYTHON) here; install Python 3.11 or say PYTHON=..." >&2; exit 2; }
	@echo "environment: $(VENV), from $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "make env: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3.11-venv" >&2; exit 2; }
	@$(INSTALL) -r requirements/lock_build.txt
	@echo "environment: torch"
	@$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX) --extra-index-url https://pypi.org/simple) \
		-c requirements/lock.txt "$$(grep '^torch==' requirements/lock.txt)"
	@echo "environment: $$(grep -c == requirements/lock.txt) pinned packages"
	@$(INSTALL) --no-deps --no-build-isolation -r requirements/lock.txt
	@echo "environment: deepspeed and sam2, built here"
	@$(NO_GPU) DS_BUILD_OPS=0 SAM2_BUILD_CUDA=0 $(INSTALL) --no-deps --no-build-isolation -r requirements/lock_no_isolation.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
	@echo "environment: ready"

# For `glus page`. --no-deps: requirements/lock_page.txt says why.
env-page: env
	@$(INSTALL) --no-deps -r requirements/lock_page.txt

# docs/gpu.md. ATTN_JOBS compilers at once take up to 9 GB each; the build takes from ten minutes to an hour.
ATTN_JOBS ?= 4
env-gpu: env
	@command -v nvcc >/dev/null || test -x "$$CUDA_HOME/bin/nvcc" || { \
		echo "make env-gpu: no nvcc here; install the CUDA toolkit of torch's CUDA version, or set CUDA_HOME" >&2; exit 2; }
	@$(BIN)/python -c "import sys, torch; sys.exit(torch.version.cuda is None)" || { \
		echo "make env-gpu: this torch has no CUDA; leave TORCH_INDEX empty and run make env again" >&2; exit 2; }
	@echo "environment: flash-attn, built here"
	@MAX_JOBS=$(ATTN_JOBS) $(INSTALL) --no-deps --no-build-isolation -r requirements/gpu.in
	@$(BIN)/python -c "import flash_attn; print('environment: flash-attn', flash_attn.__version__)"

# The demo's seconds include the set-up, so its start is noted before the environment is made.
demo demo-short demo-looks: export GLUS_DEMO_STARTED := $(shell date +%s)

demo: env
	@$(GLUS) demo

demo-short: env
	@$(GLUS) demo configs/demo_short.yaml

# Ten minutes: looks, no motion (docs/demo.md).
demo-looks: env
	@$(GLUS) demo configs/demo_looks.yaml

# Needs `make demo` (docs/study.md).
study: env
	@$(GLUS) study configs/study.yaml

demo-davis: env
	@test -n "$(DATA)" || { echo "make demo-davis: DATA is not set: make demo-davis DATA=FOLDER (it holds DAVIS17/)" >&2; exit 2; }
	@$(GLUS) demo-davis configs/demo_davis.yaml "data=$(DATA)"

test: lint types unit-tests

unit-tests: env
	@$(BIN)/pytest -n $(TESTERS) $(PYTEST)

test-fast: env
	@$(BIN)/pytest -n $(TESTERS) $(PYTEST) -m "not slow and not ray and not ranks and not slurm"

lint: env
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check --quiet $(CODE) || { echo "not formatted: run $(BIN)/ruff format $(CODE)" >&2; exit 1; }
	@if git rev-parse --git-dir >/dev/null 2>&1; then $(BIN)/pre-commit run words --all-files; \
		else echo "no git repository: words are not checked"; fi

types: env
	@$(BIN)/mypy

# For a machine that has torch with CUDA but no network: docs/gpu.md. Three packages have no wheels and are built here.
WHEELS := build/gpu/wheels
BUILT := antlr4-python3-runtime|deepspeed|iopath|sam2
gpu-wheels: env
	@mkdir -p $(WHEELS)
	@grep -vE '^(#|$(BUILT))' requirements/gpu_wheels.txt >$(WHEELS)/download.txt
	@$(PIP) download -qq --no-deps --only-binary=:all: --implementation cp --python-version $(GPU_PYTHON) \
		$(foreach glibc,34 28 27 24 17 12 5,--platform manylinux_2_$(glibc)_x86_64) --platform manylinux2014_x86_64 \
		--platform manylinux2010_x86_64 --platform manylinux1_x86_64 -d $(WHEELS) -r $(WHEELS)/download.txt
	@$(NO_GPU) DS_BUILD_OPS=0 SAM2_BUILD_CUDA=0 $(PIP) wheel -qq --no-deps --no-build-isolation -w $(WHEELS) \
		$$(grep -E '^($(BUILT))' requirements/gpu_wheels.txt)
	@rm $(WHEELS)/download.txt
	@du -sh $(WHEELS)

clean:
	rm -rf build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(FOLDERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
