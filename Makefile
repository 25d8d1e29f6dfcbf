# Foramen's few commands. `make demo` and `make test` do all the set-up they need; repeating costs seconds.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
APPS := smart_apps/package.json smart_apps/package-lock.json smart_apps/vite.config.ts smart_apps/tsconfig.json \
        $(shell find smart_apps -path smart_apps/node_modules -prune -o -path smart_apps/dist -prune -o \
          \( -name '*.ts' -o -name '*.tsx' -o -name '*.html' -o -name '*.css' -o -name 'app.json' \) -print 2>/dev/null)

# Tests start hundreds of processes: where this is set, each would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-fast check setup setup-train system conformance lock clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: setup ## Start everything with demo data and open it at http://127.0.0.1:8000
	$(BIN)/foramen demo $(ARGS)

# Several workers share the cores: threads of numeric libraries would only wait for each other, and busily.
test test-fast: export OMP_NUM_THREADS = 1
test test-fast: export OPENBLAS_NUM_THREADS = 1

test: setup ## Run every test that this machine can run (ARGS=… goes to pytest)
	$(BIN)/python -m pytest -n auto $(ARGS)

test-fast: $(STAMPS)/python ## Run what needs no whole system, browser or training
	$(BIN)/python -m pytest -n auto -m "not system and not browser and not training" tests/unit tests/architecture tests/contract/dicom_objects $(ARGS)

check: $(STAMPS)/python ## Linters, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: system $(STAMPS)/python $(STAMPS)/apps ## Prepare everything, then .venv/bin/foramen runs

setup-train: setup ## Add PyTorch and MONAI (training only, outside the locked base)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-train.txt

system: ## Install Orthanc, Chromium and Chinese fonts through apt, or say what to install
	@bash scripts/install_system_packages.sh

conformance: ## Write docs/conformance/dicom.md from the tests' marks
	$(BIN)/python scripts/write_conformance_page.py

lock: ## Renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --generate-hashes --no-emit-index-url --python-version 3.11 -o requirements.lock

clean: ## Remove what make made (never FORAMEN_HOME)
	rm -rf $(VENV) smart_apps/node_modules smart_apps/dist

$(VENV)/pyvenv.cfg:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Foramen needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv"; exit 1; }

$(STAMPS)/python: requirements.lock pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/apps: $(STAMPS)/python $(APPS)
	PATH="$(abspath $(BIN)):$$PATH" bash scripts/build_apps.sh
	@touch $@
