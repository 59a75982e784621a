# mxnb: `make run` trains and shows an agent, `make test` runs every test but the slow ones. Both set up what they need.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
PRESET ?= cpu
NOTEBOOK ?= 02_masked_ppo
BIN := .venv/bin
RUNS := papermill_runs/local/$(NOTEBOOK)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-crash system colab-env lab lint bench reference notebooks badges clean

help:
	@echo "make run        train masked PPO on Craftax-Classic in a notebook and show it (start here)"
	@echo "make test       all tests but the slow ones, and every notebook at its smallest size"
	@echo "make test-all   the slow ones too"
	@echo "make test-crash runs killed at a hundred random moments, disks that fail at every write (about half an hour)"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make lint       style, types, notebooks in step with their .py"
	@echo "make bench      speed, side by side with other libraries"
	@echo "make reference  execute the notebooks whose results README shows (2 h)"
	@echo "make notebooks  write the .ipynb from the .py"
	@echo "make badges REPO=owner/name   let the Colab badges open that repository's notebooks"
	@echo "make clean      remove caches and reports (not .venv, not papermill_runs)"

setup: .venv/.installed
	@true

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	    echo "mxnb needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)."; \
	    echo "Install one, then name it: make setup PYTHON=python3.11"; exit 1; }
	@echo "Setting up .venv: $$(grep -c == requirements.lock) packages at the versions of requirements.lock, about 2 minutes ..."
	@start=$$(date +%s); \
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || { \
	    echo "Python's venv module is missing (on Debian and Ubuntu: apt-get install python3-venv)."; exit 1; }; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock && \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . && \
	echo "Set up in $$(( $$(date +%s) - start )) s." && touch $@

run: setup
	@echo
	@echo "Running notebooks/$(NOTEBOOK).ipynb with preset=$(PRESET): it trains masked PPO on Craftax-Classic and shows it."
	@echo "The cpu preset trains 1,000,000 steps, then compares with and without the mask; 6 to 10 minutes on 2 cores."
	@echo "Stopped and started again, it goes on where it was."
	@echo
	@mkdir -p $(RUNS)
	@start=$$(date +%s); \
	env -u MPLBACKEND PYDEVD_DISABLE_FILE_VALIDATION=1 MXNB_WIDGETS=off $(BIN)/papermill notebooks/$(NOTEBOOK).ipynb $(RUNS)/run.ipynb \
	    -p preset $(PRESET) --no-progress-bar --log-level WARNING --stdout-file - --stderr-file - 2>&1 \
	    | grep --line-buffered -v 'IPKernelApp. WARNING' && \
	echo && echo "Done in $$(( $$(date +%s) - start )) s. Where to look:" && \
	echo "  the notebook with its results   $(RUNS)/run.ipynb   (open it: $(BIN)/jupyter lab $(RUNS)/run.ipynb)" && \
	for run in $$(ls -td $(RUNS)/*/ 2> /dev/null | head -n 1); do \
	    echo "  the run: numbers, checkpoints   $$run"; \
	    echo "  its pictures                    $${run}figures/"; \
	    echo "  all of it on one page           $${run}page.html   (in any browser)"; \
	done

test: setup system colab-env
	@bash scripts/test.sh

test-all: setup system colab-env
	@bash scripts/test.sh --all

test-crash: setup
	@bash scripts/test.sh --all crash

# Debian packages that some tests use (a browser for the page tests, for instance); nothing to do when there is no such list.
system:
	@if [ -f scripts/system_packages.sh ]; then bash scripts/system_packages.sh; fi

# Colab's versions in an environment of their own, for the tests that run at them.
colab-env: setup
	@rm -f .venv/colab.failed; bash scripts/colab_env.sh || { test $$? = 3 && echo "So the tests at Colab's versions are skipped."; } || \
	    { echo "Colab's versions could not be installed: that counts as a failed test."; touch .venv/colab.failed; }

lab: setup
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/basedpyright
	@$(BIN)/python scripts/sync_notebooks.py --check
	@$(BIN)/python scripts/badges.py --check

bench: setup
	@$(BIN)/python benchmarks/run.py

# The executed notebooks that README shows, one by one: two hours on 2 cores.
reference: setup
	@for name in 02_masked_ppo 03_average_reward 04_dreamer 05_memory_tuning 06_hackmatrix 09_sweep_report; do bash scripts/reference.sh $$name cpu || exit 1; done

notebooks: setup
	@$(BIN)/python scripts/badges.py
	@$(BIN)/ruff format -q notebooks
	@$(BIN)/python scripts/sync_notebooks.py

# Badges and setup cells, from [tool.mxnb] repository in pyproject.toml and from colab/setup_cell.py.
badges: setup
	@$(BIN)/python scripts/badges.py $(REPO)
	@$(BIN)/python scripts/sync_notebooks.py

clean:
	rm -rf .jax_cache .reports .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
