# `make` alone lists the targets. Everything happens in .venv; only the first run of a target installs something.
PYTHON ?= python3
BIN := .venv/bin
# pip would compile what it installs on one core; -qq: some packages ship files that are no Python of this version.
INSTALL := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib || true
TESTS := -n auto --maxprocesses 4 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help demo test lint fix docs bench figures notebooks slow rehearse gpu quantus lab clean

help:   ## list the targets
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.installed   ## map a generated scene, offline, into runs/demo
	$(BIN)/caap-lab map --demo --out runs/demo

# mypy without its cache takes a minute or two on one core, and the tests leave cores idle: both go on at once. What lint
# has to say comes after the tests, in one piece; both are run to their end, and either fails.
test: .venv/.dev   ## run the tests, in one process a core, and lint beside them
	@said=$$(mktemp); trap 'kill $$lint 2>/dev/null; rm -f $$said' EXIT; trap 'exit 130' INT TERM; \
	$(MAKE) --no-print-directory lint >$$said 2>&1 & lint=$$!; \
	echo "$(BIN)/python -m pytest $(TESTS), and make lint"; \
	$(BIN)/python -m pytest $(TESTS); tests=$$?; \
	wait $$lint; lint_failed=$$?; cat $$said; \
	[ $$tests = 0 ] || { echo "the tests failed, see above" >&2; exit $$tests; }; exit $$lint_failed

lint: .venv/.dev   ## style, types, the tree's import rule and spelling; all are run before it fails
	@failed=; for tool in "ruff check" "ruff format --check" mypy lint-imports codespell; do \
	  echo "$(BIN)/$$tool"; $(BIN)/$$tool || failed="$$failed, $$tool"; \
	done; [ -z "$$failed" ] || { echo "failed:$${failed#,}; make fix mends what ruff can" >&2; exit 1; }

fix: .venv/.dev   ## format, and mend what ruff can
	$(BIN)/ruff check --fix || true
	$(BIN)/ruff format

slow: .venv/.dev   ## run the slow tests
	$(BIN)/python -m pytest -m "slow and not gpu"

rehearse: .venv/.dev   ## run the paper profile, doctor to figures, on made-up copies of its data: some minutes
	$(BIN)/python -m pytest -m "" tests/bench/paper/test_paper_run.py tests/bench/paper/test_paper_refusals.py

gpu: .venv/.dev   ## on a CUDA device: run its tests, then time CAAP there
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "make gpu needs a CUDA device, and a PyTorch built for it")'
	$(BIN)/python -m pytest -m gpu -n auto --maxprocesses 8
	$(BIN)/python -m benchmarks.gpu --out docs/tables/gpu.md

# In a folder of its own: Quantus asks for opencv-python, which would overwrite the headless one of the test tools.
QUANTUS := .venv/quantus
quantus: .venv/.dev   ## compare our metrics with Quantus's
	@[ -d $(QUANTUS)/quantus ] || $(INSTALL) --no-deps --target $(QUANTUS) \
	  quantus==0.6.0 scikit-image==0.26.0 imageio==2.38.1 tifffile==2026.3.3 cachetools==8.0.2
	PYTHONPATH=$(QUANTUS) $(BIN)/python -m pytest tests/metrics/test_quantus.py

bench: .venv/.installed   ## time CAAP, and what bounds on memory cost
	$(BIN)/python -m benchmarks.caap
	$(BIN)/python -m benchmarks.memory

figures: .venv/.installed   ## draw the paper's figures in the demo profile, and remake their gallery
	$(BIN)/caap-lab figures all --out runs/figures
	$(BIN)/python figures/_pictures.py runs/figures docs/images/figures

notebooks: .venv/.dev   ## run the notebooks that are stored with outputs, and store them
	$(BIN)/python -m experiments.notebook_outputs

docs: export PYTHONDONTWRITEBYTECODE =
docs: .venv/.docs   ## run the notebooks, and build the documentation into site/
	$(BIN)/python -m experiments.site_notebooks
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lab: .venv/.installed   ## open JupyterLab with the tour, on this computer only
	$(BIN)/caap-lab lab

clean:   ## remove caches and builds; keep .venv and runs/
	rm -rf site dist build .pytest_cache .ruff_cache .mypy_cache
	find . -path ./.venv -prune -o -path ./runs -prune -o -type d \
	  \( -name __pycache__ -o -name .ipynb_checkpoints -o -name '*.egg-info' \) -prune -exec rm -rf {} +

# The environment: pip is there only when venv has done all of its work.
.venv/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "caap_lab needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Say make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# One stamp for each set of packages: the demo does not wait for the test tools, nor the tests for the docs tools.
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing caap_lab with its notebook tools into .venv: some minutes, this first time only"
	@$(INSTALL) -e '.[notebook]'
	@$(COMPILE)
	@touch $@

# All at once from a bare clone: to install after an install means to resolve and compile everything twice.
.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing caap_lab with its notebook and test tools into .venv: some minutes, this first time only"
	@$(INSTALL) -e '.[notebook,dev]'
	@$(COMPILE)
	@touch .venv/.installed $@

# Not compiled: a site imports a quarter of what is installed. Python compiles that itself, and has to keep it: see docs.
.venv/.docs: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing caap_lab with its documentation tools into .venv: some minutes, this first time only"
	@$(INSTALL) -e '.[docs]'
	@touch $@
