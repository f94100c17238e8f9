# `make train` and `make test` do all of their own set-up; `make` alone lists what there is.
#
# Set-up makes .venv and, on Debian and Ubuntu, installs by apt what FFCV is built with. The first time takes
# minutes, the next ones a moment; `make -B install` does it again. Every variable can be set on the command line.

# The Python (3.10 or newer) that makes .venv.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo "$$python" && break; done)
# Further arguments of `pip install`, of the training, of pytest in `make test`, and of pytest in `make bench`.
PIP_ARGS ?=
TRAIN_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
# Damaged files that `make fuzz` reads: 20 times as many as the ordinary tests.
CORRUPTIONS ?= 50000
# What a machine without a GPU trains: about 4 minutes on 2 cores. In batches of 512 these images would be 16 steps,
# too few to learn anything.
CPU_RUN ?= --epochs 2 --train-images 4096 --test-images 1000 --batch-size 128 --max-lr 0.004

venv := .venv/bin/python
convert := $(venv) -m data_prep.to_ffcv
fit := $(venv) -m cifarfast.train
pip_install := $(venv) -m pip install --constraint constraints.txt
say := printf '%s\n'

# Installs $$packages, where that needs no password that nobody is there to type.
apt_install = [ -n "$$packages" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then sudo=sudo; else exit 0; fi; \
	$(say) "Installing by apt:$$packages"; \
	$$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -o DPkg::Lock::Timeout=300 --no-install-recommends \
		-qq --yes $$packages || true

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help train test lint fuzz bench install clean system-packages browser virtual-environment ffcv

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

# Conversion leaves with 2 when the download is impossible; then, and only if no source was asked for, a stand-in
# takes its place, in a folder of its own so that it is never mistaken for the real data.
train: install ## Get the data, convert it, train, print and save the result
	@set -e; case "$$CIFAR10_SOURCE" in synthetic*) data=data/synthetic ;; *) data=data/cifar10 ;; esac; \
	if [ -n "$$CIFAR10_SOURCE" ]; then $(convert) --out $$data; \
	elif ! [ -f $$data/manifest.json ]; then \
		$(convert) --out $$data \
			|| { [ $$? = 2 ] || exit 1; data=data/synthetic; $(convert) --source synthetic --out $$data; }; \
	fi; \
	banner() { ! grep -q '"kind": *"synthetic"' $$data/manifest.json \
		|| $(say) '' '***  The data is SYNTHETIC, a stand-in: accuracies say nothing about CIFAR-10.  ***' \
			'***  For the real data: CIFAR10_SOURCE=<archive or folder> make train           ***' ''; }; \
	short="$(CPU_RUN)"; \
	if $(venv) -c 'import sys, torch as t; sys.exit(not (t.cuda.is_available() or t.backends.mps.is_available()))'; \
	then short=; else $(say) "No GPU: a short run. The whole recipe: $(fit) --data $$data --compile --amp"; fi; \
	banner; $(fit) --data $$data --compile --amp $$short $(TRAIN_ARGS); banner

test: lint browser ## Lint, check the types and run the tests
	OMP_NUM_THREADS=1 $(venv) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile $(TEST_ARGS)

lint: install ## Lint and check the types
	$(venv) -m ruff check .
	$(venv) -m ruff format --check .
	$(venv) -m mypy

fuzz: install ## Read CORRUPTIONS=50000 damaged files: each must be refused in one line, or read as if it were whole
	$(venv) -m pytest tests/fuzz --corruptions $(CORRUPTIONS) --timeout 3600 -rP $(TEST_ARGS)

bench: install ## Run the benchmarks
	$(venv) -m pytest bench --benchmark-only $(BENCH_ARGS)

install: .venv/.installed ## Make .venv with everything in it

clean: ## Remove caches, and nothing else
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cifarfast data_prep bench tests -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
		|| { $(say) 'error: no Python 3.10 or newer found: install one, or name it, as in make PYTHON=/path/to/python3'; exit 1; }
	@$(MAKE) --no-print-directory system-packages virtual-environment ffcv PYTHON="$(PYTHON)"
	@touch $@

# What FFCV is built with, what torch.compile builds with, and what Debian splits off from Python.
system-packages:
	@missing() { ! "$$@" >/dev/null 2>&1; }; \
	command -v apt-get >/dev/null || exit 0; \
	python=$$("$(PYTHON)" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); packages=; \
	missing g++ --version && packages="$$packages g++"; \
	missing pkg-config --version && packages="$$packages pkg-config"; \
	missing pkg-config --exists opencv4 && packages="$$packages libopencv-dev"; \
	missing pkg-config --exists libturbojpeg && packages="$$packages libturbojpeg0-dev"; \
	missing "$(PYTHON)" -m ensurepip --version && packages="$$packages $$python-venv"; \
	missing "$(PYTHON)" -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' \
		&& packages="$$packages $$python-dev"; \
	$(apt_install)

# In which the tests look at report pages. Where it cannot be had they are skipped, and say so.
browser:
	@command -v apt-get >/dev/null || exit 0; \
	packages=; \
	command -v chromedriver >/dev/null || packages=" chromium chromium-driver"; \
	$(apt_install)

virtual-environment:
	@$(venv) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv .venv
	$(pip_install) $(PIP_ARGS) --editable '.[tools]'

ffcv:
	@if [ "$$(uname)" != Linux ]; then why='it is for Linux'; \
	elif $(say) 'Building FFCV' && $(pip_install) $(PIP_ARGS) --editable '.[dev]' >.venv/ffcv.log 2>&1 \
		&& $(venv) -c 'import ffcv' 2>>.venv/ffcv.log; then exit 0; \
	elif pkg-config --exists opencv4 libturbojpeg 2>/dev/null && g++ --version >/dev/null 2>&1; then \
		why='see .venv/ffcv.log'; \
	else why='install libopencv-dev libturbojpeg0-dev pkg-config g++, then run make -B install'; fi; \
	$(say) "Going on without FFCV ($$why): the resident loader takes its place."
