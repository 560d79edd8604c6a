# SPDX-License-Identifier: Apache-2.0
# Two commands do all the set-up: `make demo` and `make test`. Both prepare .venv themselves, on a machine that has
# nothing but Python 3.11 or newer.
SHELL := /bin/sh
VENV ?= .venv
RUN := $(VENV)/bin/python
KDO := $(VENV)/bin/kdo
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: collection deb demo dist lock man test test-lab test-lab-full results proof sbom schemas docs site bench clean

$(VENV)/.ready: pyproject.toml tests/requirements.txt
	@set -e; python=; \
	for p in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$p; break; fi; \
	done; \
	[ -n "$$python" ] || { echo "kdump-orchestrator needs Python 3.11 or newer: install it, or give it with make PYTHON=/path" >&2; exit 1; }; \
	echo "preparing $(VENV) with $$($$python --version)" >&2; \
	if ! $$python -m venv $(VENV) >/dev/null 2>&1; then \
	  rm -rf $(VENV); v=$$($$python -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "this Python cannot make virtual environments: install $$v" >&2; exit 1; }; \
	  apt-get update -qq && apt-get install -y -qq $$v >/dev/null; $$python -m venv $(VENV); \
	fi; \
	pip="$(RUN) -m pip install -q --disable-pip-version-check"; \
	$$pip --require-hashes -r tests/requirements.txt; \
	$$pip --no-deps --no-build-isolation -e .; \
	touch $@

# The main job, on this machine as its own first host: what is it, which layer cleans up and why, what would change.
# Read-only: nothing is written outside $(VENV).
demo: $(VENV)/.ready
	@$(RUN) -m orchestrator.demo

# Unit, property, command-line and wheel tests, linters and types.
test: $(VENV)/.ready
	@$(RUN) tests/install_servers.py
	@$(RUN) -m pytest -q -n auto -m "not lab" -p no:cacheprovider $(ARGS)

# Real guests: detect, plan, apply, reboot, validate, crash, and a vmcore that can be read. Installs what it needs
# from Debian's packages (as root). A guest keeps about one core busy, so two run side by side.
test-lab: $(VENV)/.ready
	@$(RUN) -c 'from orchestrator.lab.requirements import install; install(("x86_64",))'
	@$(RUN) -m pytest -q -n 2 --dist worksteal --durations=0 --durations-min=5 -m "lab and not lab_full" -p no:cacheprovider -x $(ARGS) tests/lab

# All guests, also the slow ones.
test-lab-full: $(VENV)/.ready
	@$(RUN) -c 'from orchestrator.lab.arches import ARCHES; from orchestrator.lab.requirements import install; install(tuple(ARCHES))'
	@$(RUN) -m pytest -q -m lab -p no:cacheprovider $(ARGS) tests/lab

# The same, with what came of it kept: docs/coverage.md is made from tests/results.
results: $(VENV)/.ready
	@mkdir -p tests/results && rm -f tests/results/lab.jsonl
	@KDO_LAB_RESULTS=$(CURDIR)/tests/results/lab.jsonl $(MAKE) test-lab-full ARGS="$(ARGS)"
	@$(RUN) -m orchestrator.reference .

# Real crashes of every architecture, strategy and kind that guests can be made for; docs/proof.md is made from what came of
# them. Hours on two cores.
proof: $(VENV)/.ready
	@$(RUN) -c 'from orchestrator.lab.arches import ARCHES; from orchestrator.lab.requirements import install; install(tuple(ARCHES))'
	@mkdir -p tests/results/proof && rm -f tests/results/proof/proofs.jsonl
	@KDO_PROOF_RESULTS=$(CURDIR)/tests/results/proof/proofs.jsonl $(RUN) -m pytest -q -p no:cacheprovider $(ARGS) tests/lab/test_proof.py
	@$(RUN) -m orchestrator.reference .

# Schemas and reference pages that are generated from code; a test checks that they are up to date.
schemas docs: $(VENV)/.ready
	@$(RUN) -m orchestrator.reference .

# The documentation as pages that need nothing from elsewhere, in dist/site.
site: $(VENV)/.ready
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build -q

# Man pages, for packages and for ~/.local/share/man/man1.
man: $(VENV)/.ready
	@$(RUN) -m orchestrator.manpages dist/man1

# The Ansible collection, from playbooks/; docs/ansible.md says what it is good for.
collection: $(VENV)/.ready
	@$(RUN) -m orchestrator.collection dist

# Wheel and sdist, the same bytes from the same tree; docs/packaging.md.
dist: $(VENV)/.ready
	@$(RUN) -m orchestrator.packaging dist dist

# A package for Debian 13 and newer: apt install ./dist/kdump-orchestrator_*.deb
deb: $(VENV)/.ready
	@$(RUN) -m orchestrator.packaging deb dist

# What the wheel pulls in, as CycloneDX JSON; makes the wheel, too.
sbom: $(VENV)/.ready
	@$(RUN) -m orchestrator.packaging sbom dist

# The locked development set anew, with the newest versions that pyproject.toml admits.
lock: $(VENV)/.ready
	@$(RUN) -m orchestrator.packaging lock tests

bench: $(VENV)/.ready
	@$(RUN) benchmarks/decide.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
