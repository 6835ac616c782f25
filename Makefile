# Multi-Layer GRPO, reproduced. `make` or `make help` lists the targets.
PROFILE ?= auto
OUT ?=
SEEDS ?=
PARAMS ?=
MODEL ?=
PYTHON ?=
WORKERS ?=
REPO ?=
DRY ?=
DATA ?=
RUN = .venv/bin/python -m mgrpo_lib
OPTIONS = --profile "$(PROFILE)" $(if $(OUT),--out "$(OUT)") $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(MODEL),--model "$(MODEL)") $(if $(PARAMS),--params "$(PARAMS)")
STAMP = .venv/.ready

.DELETE_ON_ERROR:
.PHONY: help setup doctor reproduce plan test test-slow test-colab test-extra test-browser benchmark fuzz agreement kill-test lint format figures html badges lab lock licences audit newest clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo "PROFILE=$(PROFILE)  OUT=folder for results/ and figures/  SEEDS=0,1,2  MODEL=folder or hub id  PARAMS='name=value name=value'  PYTHON=python3.12"

setup: $(STAMP)  ## .venv with the locked packages and the library (done once; the others call it)

$(STAMP): requirements.lock pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh
	@touch $@

doctor: $(STAMP)  ## what this machine is, which profiles it can run, and what to mend (half a minute, no network)
	@$(RUN) doctor $(if $(OUT),--out "$(OUT)")

reproduce: $(STAMP)  ## run what is missing of the experiment and print its table
	@$(RUN) reproduce $(OPTIONS) $(if $(WORKERS),--workers $(WORKERS))

plan: $(STAMP)  ## what a profile would take on GPUs: parameters, memory, tokens, disk, hours (seconds, no download)
	@$(RUN) plan $(OPTIONS)

test: $(STAMP)  ## the tests: units, invariants against TRL, notebooks, the whole chain in small (about three minutes on two cores)
	@.venv/bin/python -m pytest -m "not slow"

test-slow: $(STAMP)  ## the rest: several processes, a chain on another model, stopped or on a full disk, a killed 4-bit training (minutes)
	@.venv/bin/python -m pytest -m slow

test-colab: $(STAMP)  ## set-up cell and notebooks in fresh environments like Colab's (minutes; 8 GB for a while)
	@.venv/bin/python -m tests.repository.colab_real $(if $(PYTHON),--python "$(PYTHON)")

test-extra: $(STAMP)  ## notebooks 07 and 08, which the chain leaves out, from top to bottom (minutes)
	@.venv/bin/python -m tests.repository.notebooks_real

test-browser: $(STAMP)  ## notebooks in JupyterLab, in a real browser, as pictures in tests/screenshots/ (minutes; installs Chromium if there is none)
	@.venv/bin/python -m tests.repository.browser

benchmark: $(STAMP)  ## what a joint step costs per token beside plain TRL GRPO, and how it grows; on idle cores (a quarter of an hour)
	@OMP_NUM_THREADS=1 .venv/bin/python benchmarks/step_cost.py

fuzz: $(STAMP)  ## hostile text for the verifier: N texts (100000, minutes) in families, from SEED; one core
	@.venv/bin/python -m tests.verifier.fuzz $(or $(N),100000) $(or $(SEED),0)

agreement: $(STAMP)  ## the verifier's verdicts beside labelled completions (DATA=file.jsonl[.gz]), into docs/verifier.md (a minute)
	@.venv/bin/python -m tests.verifier.agreement $(if $(DATA),"$(DATA)") --table docs/verifier.md

kill-test: $(STAMP)  ## kill the smoke chain at random moments and in every stage, and compare its end; KILLS=24 (a quarter of an hour)
	@.venv/bin/python -m tests.experiment.kill_pipeline --table docs/robustness.md $(if $(KILLS),--kills $(KILLS))

lint: $(STAMP)  ## ruff on library, tests and notebooks
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

format: $(STAMP)  ## let ruff format everything
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

figures: $(STAMP)  ## redraw tables, figures and README's results from result files (seconds, no torch)
	@$(RUN) figures $(OPTIONS)

html: $(STAMP)  ## pages of the reference run in site/, from the committed results: open without server or network (a minute)
	@.venv/bin/python tools/pages.py $(if $(OUT),--out "$(OUT)")

badges: $(STAMP)  ## Colab badges and set-up cells of all notebooks; REPO=owner/name says where the repository is
	@.venv/bin/python tools/badges.py $(if $(REPO),"$(REPO)")

lab: $(STAMP)  ## open the notebooks in JupyterLab
	@.venv/bin/jupyter lab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

licences: $(STAMP)  ## write LICENCES.md: the licence of every locked package, by its own metadata
	@.venv/bin/python tools/licences.py

audit: $(STAMP)  ## known vulnerabilities of the locked packages, by pip-audit in a throw-away environment (network)
	@.venv/bin/python tools/audit.py

newest: $(STAMP)  ## all tests with the newest packages that pyproject.toml allows, in a throw-away environment (long; 6 GB); DRY=1 only lists them
	@.venv/bin/python tools/newest.py $(if $(DRY),--dry-run)

lock: $(STAMP)  ## write requirements.lock anew from what is installed in .venv
	@.venv/bin/python tools/lock.py

clean:  ## remove .venv, caches and the smoke results; committed results stay
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info results/smoke figures/smoke site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
