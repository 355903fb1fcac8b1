# Everything here runs in .venv; `make help` lists the targets.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
CHECKOV := build/checkov
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Importing the CDK without cached bytecode takes six times as long, at every synth.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-scaling test test-slow unit infra security integration image image-test e2e bench lint format lock schemas members-page vulnerabilities sbom synth release clean

help: ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9_-]+:.*## / {printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with everything in it (Python packages, Node, the CDK command line)

# PyTorch has no hash that fits all, because its builds differ. uv takes the one for this machine's GPU, or the CPU build,
# which is gigabytes smaller. Where uv does not reach those builds, pip takes what it is configured to find. PyTorch goes
# last: what it needs is there by then, checked, and this project's own build needs setuptools.
TORCH := --quiet --only-binary :all: --constraint requirements.txt torch torchvision
CHECKED := --quiet --no-deps --only-binary :all: --require-hashes
$(VENV)/.installed: requirements.txt requirements-dev.lock pyproject.toml emulator/pyproject.toml package.json package-lock.json
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make setup PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock >$(VENV)/uv.txt
	$(BIN)/python -m pip install $(CHECKED) --disable-pip-version-check --requirement $(VENV)/uv.txt
	$(BIN)/uv pip install $(CHECKED) --python $(BIN)/python --requirement requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . --editable ./emulator
	UV_HTTP_RETRIES=0 $(BIN)/uv pip install --python $(BIN)/python --torch-backend auto $(TORCH) 2>/dev/null || \
		$(BIN)/python -m pip install --disable-pip-version-check --no-compile $(TORCH)
	npm ci --no-fund --no-audit --loglevel=error
	ln -sf ../../node_modules/.bin/cdk $(BIN)/cdk
	touch $@
	@echo 'Ready. Next: make demo, or: source $(VENV)/bin/activate && kennel --help'

demo: setup ## train, deploy and call a classifier on a local AWS, start to finish
	@kennel demo

demo-scaling: setup ## see scaling, a rollback, cold starts and throttling happen on a local AWS (under 4 minutes)
	@kennel demo-scaling

test: setup lint unit infra security image-test integration ## all tests that need no AWS account, less the long trials

# Two files at a time, each in its order: tests of a file share what is dear to set up. More would only share two cores.
TWO := -n 2 --dist loadfile
QUICK := -m 'not slow'

unit: setup ## tests without network or Node
	python -m pytest $(TWO) $(QUICK) tests/unit

$(CHECKOV)/.installed: requirements-checkov.lock $(VENV)/.installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CHECKOV)
	$(BIN)/uv pip install $(CHECKED) --python $(CHECKOV)/bin/python --requirement requirements-checkov.lock
	touch $@

infra: setup $(CHECKOV)/.installed ## synthesised templates, the security gate, cfn-lint and checkov
	python -m pytest $(QUICK) tests/infra

security: setup ## attacks that must fail, on the code and on the local AWS
	python -m pytest $(TWO) $(QUICK) tests/security

# The file that takes longest begins first, and not that with most tests.
AS_LISTED := --no-loadscope-reorder
integration: setup ## the whole path on the local AWS
	python -m pytest $(TWO) $(AS_LISTED) $(QUICK) tests/integration

test-slow: setup ## the long trials: killed servers, full disks, whole deployments
	python -m pytest $(TWO) $(AS_LISTED) -m slow tests/integration tests/unit tests/infra tests/security

image: setup ## build the serving image (docker, podman or buildah; BASE=IMAGE: on another base)
	kennel image build $(if $(BASE),--base $(BASE))

image-test: setup ## build the serving image and run it as SageMaker does (needs buildah, mmdebstrap and root)
	python -m pytest tests/image

MISSING = $(error it costs money: make e2e ACCOUNT=123456789012 REGION=eu-west-1)
e2e: setup ## docs/first-deploy.md on a real account: make e2e ACCOUNT=… REGION=… (costs money, tears down)
	python -m pytest tests/e2e -s --real-account $(or $(ACCOUNT),$(MISSING)) --real-region $(or $(REGION),$(MISSING))

bench: setup ## serving and the function beside others, measured: 9 minutes (make bench OPTIONS=--quick: 4)
	python -m benchmarks.serving $(OPTIONS)
	python -m benchmarks.lambda_start

lint: setup ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

format: setup ## let ruff format the code
	ruff format .
	ruff check --fix .

# The pins are for people, the locks for installers: the hashes of every build that the registry has of these versions.
COMPILE := uv pip compile --quiet --custom-compile-command 'make lock' --generate-hashes --no-annotate
EXACTLY := $(COMPILE) --no-deps --universal --python-version 3.11 --no-emit-package torch --no-emit-package torchvision
lock: setup ## write the hashes again, after a pin has changed
	for pins in requirements-*.txt benchmarks/requirements-*.txt; do $(EXACTLY) $$pins --output-file $${pins%.txt}.lock || exit; done
	$(COMPILE) --constraint requirements.txt --universal --python-version 3.11 model/serving/image/requirements.in --output-file model/serving/image/requirements.txt
	$(COMPILE) --constraint requirements.txt --python-platform linux --python-version 3.11 --no-emit-package numpy --only-binary :all: --emit-build-options model/training/job/requirements.in --output-file model/training/job/requirements.txt

schemas: setup ## write the schemas of templates' resources again, of cfn-lint's: after its pin or the types here have changed
	mkdir -p build
	PYTHONPATH=tests/support/members:. python -m resource_schemas >build/schemas.xz
	mv build/schemas.xz emulator/ministack/cloudformation/schemas.json.xz

members-page: setup ## write docs/local-aws-members.md again, after a table in emulator/platform/members/ has changed
	PYTHONPATH=tests/support/members:tests/support/local_aws:tests/support/fakes:. python -c 'import pathlib, tempfile, members_page; print(members_page.make_page(pathlib.Path(tempfile.mkdtemp())), end="")' >docs/local-aws-members.md

PINS = requirements*.txt benchmarks/requirements-*.txt
EXCEPTIONS = tests/security/origin/vulnerability_exceptions.toml
# One file after the other, because they pin different versions.
AUDIT = pip-audit --strict --disable-pip --no-deps --progress-spinner off --vulnerability-service osv $(AUDIT_OPTIONS)
vulnerabilities: setup ## known vulnerabilities of every pinned package (asks OSV and npm; docs/dependencies.md)
	@failed=0; ids=$$(sed -n 's/^id = "\(.*\)"$$/\1/p' $(EXCEPTIONS)); excepted=$$(for id in $$ids; do echo --ignore-vuln $$id; done); \
	for pins in $(PINS); do echo "$$pins:"; $(AUDIT) $$excepted --requirement $$pins || failed=1; \
	known="$$known $$(test -z "$$ids" || $(AUDIT) --aliases --requirement $$pins 2>&1)"; done; \
	for id in $$ids; do case "$$known" in *"$$id"*) ;; *) echo "$$id is found nowhere: take it out of $(EXCEPTIONS)"; failed=1;; esac; done; \
	npm audit --package-lock-only || failed=1; exit $$failed

VALIDATE := --validate
BOM := cyclonedx-py requirements --output-reproducible $(VALIDATE)
sbom: setup ## build/sbom: what is in the operator's environment, the serving image, a training job, as CycloneDX
	mkdir -p build/sbom
	{ cat requirements-dev.lock; grep -E '^torch(vision)?==' requirements.txt; } | $(BOM) --output-file build/sbom/operator.json -
	$(BOM) --output-file build/sbom/serving-image.json model/serving/image/requirements.txt
	$(BOM) --output-file build/sbom/training-job.json model/training/job/requirements.txt
	npm sbom --package-lock-only --sbom-format cyclonedx >build/sbom/node.json

synth: setup ## synthesise every stack of the dev stage, with the security checks
	cdk synth --quiet -c stage=dev

# The version stands in pyproject.toml and emulator/pyproject.toml. The tag is pushed by hand: that is what others see.
release: setup ## a version: make release VERSION=1.2.0 writes it, dates the CHANGELOG, commits and tags
	@test -n "$(VERSION)" || { echo 'Which version? make release VERSION=1.2.0'; exit 2; }
	@test -z "$$(git status --porcelain)" || { echo 'Commit or stash first: a release is what is committed.'; exit 3; }
	for project in . emulator; do uv version --frozen --project $$project "$(VERSION)" || exit; done
	sed -i.old 's/^## \[Unreleased\]$$/&\n\n## [$(VERSION)] - '"$$(date +%F)"'/' CHANGELOG.md && rm CHANGELOG.md.old
	git commit --quiet --all --message 'Version $(VERSION)'
	git tag --annotate 'v$(VERSION)' --message 'Version $(VERSION)'
	@echo 'Look at it (git show), then publish it: git push --follow-tags'

clean: ## stop the local AWS and remove what was built (not .venv)
	-test ! -x $(BIN)/kennel || kennel local down
	rm -rf build cdk.out .kennel .pytest_cache .ruff_cache .mypy_cache
