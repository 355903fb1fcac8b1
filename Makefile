# Everything here runs in .venv; `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RAY    := build/ray
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Importing the CDK without cached bytecode takes six times as long, at every synth.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit infra security integration image image-test ray e2e bench lint format synth clean

help: ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9_-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with everything in it (Python packages, Node, the CDK command line)

# torch goes first and through pip, which finds a CPU-only build where one is configured; uv installs the rest in seconds.
$(VENV)/.installed: requirements.txt requirements-dev.txt pyproject.toml package.json package-lock.json
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make setup PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint requirements.txt torch
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	npm ci --no-fund --no-audit --loglevel=error
	ln -sf ../../node_modules/.bin/cdk $(BIN)/cdk
	touch $@
	@echo 'Ready. Next: make demo, or: source $(VENV)/bin/activate && kennel --help'

demo: setup ## train, deploy and call a classifier on a local AWS, start to finish
	@kennel demo

test: setup lint unit infra security image-test integration ## all tests that need no AWS account

# Two files at a time, each in its order: tests of a file share what is dear to set up. More would only share two cores.
TWO := -n 2 --dist loadfile

unit: setup ## tests without network or Node
	python -m pytest $(TWO) tests/unit

infra: setup ## synthesised templates and the security gate
	python -m pytest tests/infra

security: setup ## attacks that must fail, on the code and on the local AWS
	python -m pytest $(TWO) tests/security

integration: setup ## the whole path on the local AWS
	python -m pytest $(TWO) tests/integration

image: setup ## build the serving image (docker, podman or buildah; BASE=IMAGE: on another base)
	kennel image build $(if $(BASE),--base $(BASE))

image-test: setup ## build the serving image and run it as SageMaker does (needs buildah, mmdebstrap and root)
	python -m pytest tests/image

$(RAY)/.installed: requirements-ray.txt $(VENV)/.installed
	rm -rf $(RAY)
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --target $(RAY) -r requirements-ray.txt
	touch $@

ray: $(RAY)/.installed ## the artifact on the real Ray Serve (installs 265 MB beside .venv)
	PYTHONPATH=$(CURDIR)/$(RAY) python -m pytest tests/integration/test_ray_serve.py

e2e: setup ## the same path on a real account: make e2e ACCOUNT=123456789012 (costs money, tears down)
	python -m pytest tests/e2e -s --real-account "$(ACCOUNT)"

bench: setup ## serving and the function beside others, measured: 9 minutes (make bench OPTIONS=--quick: 4)
	python -m benchmarks.serving $(OPTIONS)
	python -m benchmarks.lambda_start

lint: setup ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy app.py benchmarks cli emulator infra lambda_fn model

format: setup ## let ruff format the code
	ruff format .
	ruff check --fix .

synth: setup ## synthesise every stack of the dev stage, with the security checks
	cdk synth --quiet -c stage=dev

clean: ## stop the local AWS and remove what was built (not .venv)
	-test ! -x $(BIN)/kennel || kennel local down
	rm -rf build cdk.out .kennel .pytest_cache .ruff_cache .mypy_cache
