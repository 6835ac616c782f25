# Multi-Layer GRPO, reproduced. `make` or `make help` lists the targets.
PROFILE ?= auto
OUT ?=
SEEDS ?=
PARAMS ?=
MODEL ?=
PYTHON ?=
WORKERS ?=
BIN = .venv/bin
RUN = $(BIN)/python -m mgrpo_lib
OPTIONS = --profile "$(PROFILE)" $(if $(OUT),--out "$(OUT)") $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(MODEL),--model "$(MODEL)") $(if $(DATA),--data "$(DATA)") $(if $(PROBLEMS),--problems "$(PROBLEMS)") $(if $(PARAMS),--set $(PARAMS))
READY = .venv/.ready
TOOLS = .venv-tools/bin
DEV = test-slow test-extra test-colab test-browser lint format html executed architecture badges benchmark fuzz agreement kill-test lock licences audit newest clean

# A misspelt name would be ignored, and another experiment would run
NAMES = PROFILE OUT SEEDS PARAMS MODEL PYTHON WORKERS DATA PROBLEMS DETAILS KILLS N START UPGRADE REPO
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
$(if $(filter-out $(NAMES),$(GIVEN)),$(error unknown: $(filter-out $(NAMES),$(GIVEN)); the names are $(NAMES)))

.DELETE_ON_ERROR:
.PHONY: help setup doctor plan preflight reproduce reference figures lab test $(DEV)

help:  ## this list
	@sed -nE 's/^##@ (.*)/\n\1/p; s/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16
	@printf '\nPROFILE=$(PROFILE) (a name in profiles/, or my.yaml)  OUT=folder of results/ and figures/ (default: out)  SEEDS=0,1,2  MODEL=folder or hub id\n'
	@echo "PARAMS='name=value name=value'  WORKERS=notebooks at a time  PYTHON=python3.12"

##@ To use it
setup: $(READY)  ## .venv with the locked packages and the library (once; the other targets call it)

$(READY): requirements.lock pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh
	@touch $@

doctor: $(READY)  ## what this machine can run, and how to fix what is missing (half a minute, no network)
	@$(RUN) doctor $(if $(OUT),--out "$(OUT)")

plan: $(READY)  ## does a profile fit, and how long does it take? DETAILS=1 (seconds, no download)
	@$(RUN) plan $(OPTIONS) $(if $(DETAILS),--details)

preflight: $(READY)  ## can MGRPO help a MODEL on DATA=set or file? PROBLEMS=64 (minutes)
	@$(RUN) preflight $(OPTIONS)

reproduce: $(READY)  ## run what is missing of the experiment, into out/, and print its table
	@$(RUN) reproduce $(OPTIONS) $(if $(WORKERS),--workers $(WORKERS))

reference: $(READY)  ## the same into the repository: renews the committed results and figures (then: make figures)
	@$(RUN) reproduce $(OPTIONS) $(if $(WORKERS),--workers $(WORKERS)) --out .

figures: $(READY)  ## redraw committed tables, figures and the pages' numbers, or those of OUT (seconds, no torch)
	@$(RUN) figures $(OPTIONS)

lab: $(READY)  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --notebook-dir=notebooks --LabApp.news_url=None $(if $(filter 0,$(shell id -u)),--allow-root)

test: $(READY)  ## units, equalities with TRL, notebooks, a small pipeline (about three minutes on two cores)
	@$(BIN)/python -m pytest -m "not slow"

##@ To develop it
test-slow: $(READY)  ## several processes, stopped pipelines, a full disk, a killed 4-bit training (minutes)
	@$(BIN)/python -m pytest -m slow

test-extra: $(READY)  ## notebooks 07 and 08 from top to bottom (minutes)
	@$(BIN)/python -m tests.repository.notebooks_real

test-colab: $(READY)  ## set-up cell and notebooks in fresh environments like Colab's (minutes; 8 GB)
	@$(BIN)/python -m tests.repository.colab_real $(if $(PYTHON),--python "$(PYTHON)")

test-browser: $(READY)  ## notebooks in JupyterLab in a real browser; pictures in tests/screenshots/ (minutes)
	@$(BIN)/python -m tests.repository.browser

lint: $(READY)  ## ruff, and the imports between the rooms of the library
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

format: $(READY)  ## let ruff fix and format everything
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

html: $(READY)  ## docs/ and the executed notebooks as pages in site/ (a minute, no network)
	@$(BIN)/sphinx-build -q -W --keep-going docs site/html
	@echo "open site/html/index.html"

executed: $(READY)  ## copies of all notebooks with their outputs in results/cpu/notebooks; after make reproduce (minutes)
	@$(BIN)/python tools/executed.py

architecture: $(READY)  ## draw docs/architecture.svg from the imports of the code
	@$(BIN)/python tools/architecture.py

badges: $(READY)  ## Colab badge and set-up cell of every notebook; REPO=owner/name names the repository
	@$(BIN)/python tools/badges.py $(if $(REPO),"$(REPO)")

benchmark: $(READY)  ## cost of a joint step per token beside plain TRL GRPO; on idle cores (a quarter of an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step_cost.py

fuzz: $(READY)  ## N=100000 hostile texts for the verifier, from START=0 (minutes, one core)
	@$(BIN)/python -m tests.verifier.fuzz $(or $(N),100000) $(or $(START),0)

agreement: $(READY)  ## verifier against labelled completions (DATA=file.jsonl[.gz]), into docs/verifier.md (a minute)
	@$(BIN)/python -m tests.verifier.agreement $(if $(DATA),"$(DATA)") --table docs/verifier.md

kill-test: $(READY)  ## kill the smoke pipeline KILLS=24 times and compare its end (a quarter of an hour)
	@$(BIN)/python -m tests.experiment.kill_pipeline --table docs/robustness.md $(if $(KILLS),--kills $(KILLS))

##@ Packages (network)
$(TOOLS)/uv: $(READY)
	@$(BIN)/python -m venv .venv-tools
	@$(TOOLS)/python -m pip install --quiet --disable-pip-version-check uv pip-licenses pip-audit

# One line a package for both Pythons: no markers, no build tags, nothing that torch's CUDA builds pin themselves
lock: $(TOOLS)/uv  ## requirements.lock from pyproject.toml; present pins stay, UPGRADE=1 takes the newest
	@cp requirements.lock .lock
	@$(TOOLS)/uv pip compile pyproject.toml --extra dev --universal --fork-strategy fewest --python-version 3.11 \
		--quiet --no-header --no-annotate $(if $(UPGRADE),--upgrade) --output-file .lock
	@{ grep '^#' requirements.lock; sed -E 's/ ;.*//; s/\+.*//; /^(nvidia-|cuda-|triton=)/d' .lock; } > .new
	@mv .new requirements.lock; rm .lock
	@echo "requirements.lock: $$(grep -c == requirements.lock) packages; next: make setup licences"

licences: $(TOOLS)/uv  ## LICENCES.md: the licence of every locked package, by its own metadata
	@$(TOOLS)/pip-licenses --python $(BIN)/python --with-system --from mixed --format markdown --output-file .table \
		--packages $$(sed -nE 's/==.*//p' requirements.lock)
	@{ grep -v '^|' LICENCES.md; sed -E 's/\+[a-z0-9]+ / /; s/ +/ /g; s/-{4,}/---/g' .table; } > .new
	@mv .new LICENCES.md; rm .table

audit: $(TOOLS)/uv  ## known vulnerabilities of the locked packages; names what could not be looked up
	@$(TOOLS)/pip-audit --no-deps --disable-pip --progress-spinner off --requirement requirements.lock

newest: $(READY)  ## the tests with the newest packages that pyproject.toml allows, in .venv-newest (long; 6 GB)
	@$(BIN)/python -m venv --clear .venv-newest
	@.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@.venv-newest/bin/python -m pytest -m "not slow"
	@rm -rf .venv-newest

clean:  ## remove environments, caches, pages and smoke results; committed results stay
	rm -rf .venv .venv-tools .venv-newest .pytest_cache .ruff_cache .import_linter_cache *.egg-info site results/smoke figures/smoke out/*/smoke
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
