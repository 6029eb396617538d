# `make demo`, `make test` and `make lint` do all their own set-up, in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow test-smplx test-blender test-web fuzz lint format doctor clean

help: ## list what can be made
	@grep -E '^[A-Za-z0-9_-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.test: requirements-test.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	touch $@

$(VENV)/.smplx: $(VENV)/.test
	$(BIN)/python -m pip install --quiet 'smplx>=0.1.28'
	touch $@

$(VENV)/.blender: $(VENV)/.test
	$(BIN)/python -m pip install --quiet 'bpy==5.0.1'
	touch $@

$(VENV)/.web: $(VENV)/.test
	$(BIN)/python -m pip install --quiet 'viser>=1.1' 'gradio>=6.31' 'av>=18' 'playwright>=1.50'
	touch $@

demo: $(VENV)/.runtime ## run the demo on the sample photos; pictures and meshes in outputs/
	$(BIN)/python demo.py --img_path samples

test: $(VENV)/.test ## run the default tests: no GPU, no network, no licensed file
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.test ## run the slow ones: training end to end, timings, very large photos
	$(BIN)/python -m pytest -m alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not alone"

test-smplx: $(VENV)/.smplx ## compare the body layer with smplx itself (its licence: research only)
	$(BIN)/python -m pytest -m smplx -s

test-blender: $(VENV)/.blender ## import a clip into Blender itself (bpy, 374 MB, needs Python 3.11)
	$(BIN)/python -m pytest -m blender -s

test-web: $(VENV)/.web ## drive the viewer and the web page in a browser (apt-get install chromium)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m web -s

FUZZ_MINUTES ?= 10
fuzz: $(VENV)/.test ## read damaged files on two cores for FUZZ_MINUTES minutes (10); a table of the faults
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(FUZZ_MINUTES)

lint: $(VENV)/.test ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.support.typecheck

format: $(VENV)/.test ## apply the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

doctor: $(VENV)/.runtime ## say what is present and what is missing
	$(BIN)/python -m scripts.doctor

clean: ## remove the environment and all outputs
	rm -rf $(VENV) outputs build *.egg-info .pytest_cache .ruff_cache
