# What a person types here. `make train` and `make test` set everything up themselves, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What runs beside another framework needs other versions, and has an environment of its own.
DEPLOY := .venv-deploy
LABEL := .venv-label
FL := .venv-fl
AUDIT := .venv-audit
PIP_INSTALL := -m pip install --disable-pip-version-check --no-input

# Pictures are drawn without a screen, and no library reports its use to anybody.
export MPLBACKEND := Agg
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup radiomics train study ablation weights benchmark soak test check lint types tests coverage deploy-test label-test fl-test licences audit fuzz format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 13

setup: $(INSTALLED)  ## make .venv and install the pinned packages

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one with: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --requirement constraints.txt
	@touch $@

radiomics: $(INSTALLED)  ## add the Frechet radiomics distance; needs a C compiler
	$(BIN)/python $(PIP_INSTALL) --no-build-isolation \
		--constraint constraints.txt --requirement constraints-radiomics.txt

train: $(INSTALLED)  ## train, validate and evaluate on the built-in synthetic phantom: minutes on a CPU
	$(BIN)/python -m monai.bundle run training --config_file "['configs/train.json','configs/quickstart.yaml']"
	$(BIN)/python -m monai.bundle run evaluating --config_file "['configs/train.json','configs/quickstart.yaml','configs/evaluate.json']"

STUDY := runs/study
study: $(INSTALLED)  ## cross-validate CycleGAN, Seg-CycleGAN and L1 on a small phantom, with a report: some 20 minutes
	@test -f data/phantom-study/datalist.json || \
		$(BIN)/python scripts/make_phantom.py --output data/phantom-study --patients 60 --size 64 --folds 3
	$(BIN)/python scripts/cross_validate.py --config configs/train.json configs/quickstart.yaml \
		--dataset_dir data/phantom-study --arms baseline seg35 seg100 l1 --backend ray --output $(STUDY)
	$(BIN)/python scripts/report.py $(STUDY) -o $(STUDY)/report.html

# Every term beyond the paper, on the phantom and, where ABLATION_SOURCE is a folder, on the CDD-CESM derivative.
ABLATION := runs/ablation
ABLATION_SOURCE := data/cdd-cesm-512
ABLATION_ARMS := baseline seg35 paired_lesion contrast mask_guided lesion_patch gamma_uncertainty gamma_balanced \
	gamma_controlled pix2pix l1 l1+paired_lesion l1+contrast
ablation: $(INSTALLED)  ## compare all terms beyond the paper, 3 folds and 2 seeds: many hours, goes on when repeated
	@test -f data/phantom-study/datalist.json || \
		$(BIN)/python scripts/make_phantom.py --output data/phantom-study --patients 60 --size 64 --folds 3
	$(BIN)/python scripts/cross_validate.py --config configs/train.json configs/quickstart.yaml --backend ray --seeds 0 1 \
		--dataset_dir data/phantom-study --arms $(ABLATION_ARMS) --output $(ABLATION)/phantom
	$(BIN)/python scripts/study_table.py $(ABLATION)/phantom
	@if test -d $(ABLATION_SOURCE); then set -x; \
		test -f $(ABLATION)/data/datalist.json || $(BIN)/python scripts/prepare_data.py pairs --folds 3 \
			--image-dir $(ABLATION_SOURCE)/LE --label-dir $(ABLATION_SOURCE)/DES \
			--mask-dir $(ABLATION_SOURCE)/mask_LE --label-mask-dir $(ABLATION_SOURCE)/mask_DES \
			--table $(ABLATION_SOURCE)/index.csv --laterality-column side --exclude-below breast_iou 0.9 \
			--name "512-px CDD-CESM derivative" --output $(ABLATION)/data || test $$? = 3; \
		$(BIN)/python scripts/cross_validate.py --backend ray --seeds 0 1 --dataset_dir $(ABLATION)/data \
			--arms $(ABLATION_ARMS) --output $(ABLATION)/cdd --set image_size=128 network_def#width=16 \
			network_def#blocks=6 discriminator_a_def#width=16 batch_size=1 learning_rate=4e-4 decay=0.5 pool_size=50 \
			warmup_epochs=0 patience=0 val_interval=2 panel_interval=100 max_epochs=6; \
		$(BIN)/python scripts/study_table.py $(ABLATION)/cdd; \
	else echo "no $(ABLATION_SOURCE): ablation on the phantom alone (name the folder by ABLATION_SOURCE=...)"; fi

WEIGHTS_SOURCE := data/cdd-cesm-512
weights: $(INSTALLED)  ## make weights to ship, with their card, from WEIGHTS_SOURCE=<folder of the images>: hours
	$(BIN)/python scripts/make_weights.py --source $(WEIGHTS_SOURCE)

benchmark: $(INSTALLED)  ## measure speed and memory beside plain implementations: a quarter of an hour
	$(BIN)/python scripts/benchmark.py

soak: export OMP_NUM_THREADS := 1
soak: $(INSTALLED)  ## disturb every workflow by 200 faults and compare with undisturbed runs: at most half an hour
	$(BIN)/python scripts/soak.py --minutes 30 --faults 200 --output runs/soak

test: lint types tests  ## everything that must pass: lint, types, tests

check: lint types  ## lint and types alone

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

tests: export OMP_NUM_THREADS := 1
tests: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

coverage: export OMP_NUM_THREADS := 1
coverage: $(INSTALLED)  ## the tests again, and whether they reach 90 % of the code: half as long again
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term

# MONAI Deploy: the application on a phantom study, beside the bundle's own inference.
$(DEPLOY)/.installed: scripts/deploy_app/requirements.txt
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python $(PIP_INSTALL) --requirement $<
	@touch $@

deploy-test: export OMP_NUM_THREADS := 1
deploy-test: $(INSTALLED) $(DEPLOY)/.installed  ## run the MONAI Deploy application, in an environment of its own
	ulimit -s 32768 && $(BIN)/python -m pytest -rP tests/deploy/check_app.py

# MONAI Label: its own server. Its package names versions that do not go together, hence --no-deps: requirements.txt lists
# all of them.
$(LABEL)/.installed: scripts/label_server/requirements.txt scripts/label_server/monailabel.txt
	$(PYTHON) -m venv $(LABEL)
	$(LABEL)/bin/python $(PIP_INSTALL) --no-deps --requirement scripts/label_server/requirements.txt
	$(LABEL)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --requirement scripts/label_server/monailabel.txt
	@touch $@

label-test: export OMP_NUM_THREADS := 1
label-test: $(INSTALLED) $(LABEL)/.installed  ## run MONAI Label's server on the bundle, in an environment of its own
	$(BIN)/python -m pytest tests/label/check_server.py

# NVIDIA FLARE: two simulated sites of the phantom, which share no patient.
FL_DATA := data/federated
$(FL)/.installed: pyproject.toml constraints.txt scripts/federated/requirements.txt
	$(PYTHON) -m venv $(FL)
	$(FL)/bin/python $(PIP_INSTALL) --constraint constraints.txt --requirement scripts/federated/requirements.txt .
	@touch $@

fl-test: export OMP_NUM_THREADS := 1
fl-test: $(FL)/.installed  ## simulate a federation of two phantom sites with NVIDIA FLARE and check it
	@for site in W Rh; do test -f $(FL_DATA)/$$site/datalist.json || \
		$(FL)/bin/python scripts/make_phantom.py --output $(FL_DATA)/$$site --site $$site --size 64 --folds 3 \
			--patients $$([ $$site = W ] && echo 12 || echo 9); done
	@for exchange in generator all; do \
		$(FL)/bin/python scripts/federated/job.py --sites W Rh --data $(FL_DATA)/{site} --simulate runs/federated/$$exchange \
			--exchange $$exchange --rounds 2 --local-epochs 2 --config configs/train.json configs/quickstart.yaml \
			--set image_size=32 network_def#width=4 network_def#blocks=1 discriminator_a_def#width=4; \
		$(FL)/bin/python scripts/federated/check.py runs/federated/$$exchange --data $(FL_DATA)/{site}; done

licences: $(INSTALLED)  ## list the licences of all packages of all environments in docs/licences.md
	$(BIN)/python scripts/licences.py

$(AUDIT)/.installed: scripts/supply/requirements.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python $(PIP_INSTALL) --requirement $<
	@touch $@

# --strict: a package of which the database knows nothing is an error, not a success.
audit: $(AUDIT)/.installed  ## look up known vulnerabilities of all pinned packages; needs the network
	@status=0; for pins in constraints*.txt scripts/*/requirements.txt; do \
		echo "$$pins"; \
		$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off --requirement $$pins || status=1; \
	done; exit $$status

# Every reader of foreign files, see docs/security.md.
FUZZ_MINUTES := 10
fuzz: export OMP_NUM_THREADS := 1
fuzz: $(INSTALLED)  ## give hostile files to all readers: 10 minutes
	$(BIN)/python scripts/fuzz.py --minutes $(FUZZ_MINUTES)

format: $(INSTALLED)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, caches and build files; runs and data stay
	rm -rf $(VENV) $(DEPLOY) $(LABEL) $(FL) $(AUDIT) build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
