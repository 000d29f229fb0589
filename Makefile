# make quickstart   the main job on a real model, a few minutes on two cores
# make test         what CI runs
# make check        format, lint and types (part of make test)
# make figures      draw the figures of the README and docs/results.md anew, from the records in docs/results
# make reproduce    the paper's own grid on a GPU, with models and data from the Hub; resumed where it was stopped
#
# PyTorch comes in its CPU build where there is no NVIDIA GPU, and as pip would install it where there is one;
# make TORCH=cpu or TORCH=default decides otherwise.

VENV ?= .venv
PYTHON ?= python3
CPU_INDEX = https://download.pytorch.org/whl/cpu
TORCH ?= $(shell if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then echo cpu; else echo default; fi)
BIN = $(VENV)/bin

.PHONY: quickstart test check figures reproduce clean

quickstart: $(VENV)/.quickstart
	$(BIN)/depthprune quickstart

test: $(VENV)/.dev check
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

figures: $(VENV)/.dev
	$(BIN)/python docs/results/figures.py

# Options of the sweep: make reproduce SWEEP='--gpus 0.25'; SWEEP=--dry-run says how many runs there are
reproduce: $(VENV)/.quickstart
	$(BIN)/pip install --quiet -e '.[metrics,report,sentencepiece]'
	$(BIN)/depthprune sweep examples/paper/*.yaml --store paper $(SWEEP)
	$(if $(findstring --dry-run,$(SWEEP)),,$(BIN)/depthprune report paper --output paper.html)

# --no-deps: only the wheel comes from PyTorch's own index, its dependencies with everything else.
# Where the index is out of reach, pip goes on with whatever else it has been set up with, and the version, whose
# "+cpu" no CUDA build has, keeps it from fetching one.
$(VENV)/.torch: constraints-cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cpu)
	$(BIN)/python -c "import torch" 2>/dev/null || \
		$(BIN)/pip install --quiet --retries 1 --no-deps --extra-index-url $(CPU_INDEX) -r constraints-cpu.txt
endif
	touch $@

$(VENV)/.quickstart: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet -e '.[quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache quickstart
