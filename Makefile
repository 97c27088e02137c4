# tgw: each target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
CARGO := nice -n 2 cargo
DATAPLANE := gateway/dataplane/Cargo.toml
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help setup demo test pictures lint bench bench-boards bench-services chaos mutants fuzz miri pins clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing, build the native core
	@tools/setup.sh

demo: setup ## a region on this machine: faults, detection, healing, report in out/demo (KEEP=1 leaves it running)
	@$(PY) -m cli.main demo $(if $(KEEP),--keep,)

test: lint ## every check and every test
	@tools/setup.sh --seen --test
	$(CARGO) test --manifest-path $(DATAPLANE) --workspace --quiet
	$(PY) -m pytest

lint: ## style, types, import directions, generated files
	@tools/setup.sh --lint
	$(PY) tools/generate_contract.py --check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@! command -v shellcheck >/dev/null || shellcheck tools/*.sh
	$(PY) -m mypy.stubtest gateway._dataplane
	cargo fmt --manifest-path $(DATAPLANE) --all --check
	cargo fmt --manifest-path gateway/dataplane/fuzz/Cargo.toml --check
	$(CARGO) clippy --manifest-path $(DATAPLANE) --workspace --all-targets --quiet -- -D warnings

bench: ## measure the packet path: out/bench/dataplane.json and a plot of each table (QUICK=1: in a minute)
	@tools/setup.sh --bench
	$(PY) -m benchmarks.dataplane $(if $(QUICK),--quick,)

bench-services: setup ## what each process of a region costs, idle and under traffic: out/bench/services.json (QUICK=1: in a minute)
	$(PY) -m benchmarks.services $(if $(QUICK),--settle 10 --seconds 10,)

bench-boards: ## measure each panel's SQL on 1,000 VIPs x 1 h: out/bench/dashboards.json
	$(PY) -m benchmarks.boards

pictures: ## draw the dashboards with Grafana's own panels into docs/pictures
	@tools/setup.sh --seen
	@$(PY) -m tests.dashboards.seen.pictures

chaos: setup ## 200 kill -9 at random instants, every record accounted for: out/chaos/report.json (CHAOS_KILLS, CHAOS_SEED)
	@$(PY) -m benchmarks.chaos --kills $(or $(CHAOS_KILLS),200) --seed $(or $(CHAOS_SEED),1)

mutants: setup ## 180 small faults put into the code, which the tests must notice: out/mutants/report.json (MUTANTS, MUTANTS_SEED)
	@nice $(PY) -m tools.mutants --count $(or $(MUTANTS),180) --seed $(or $(MUTANTS_SEED),1)

fuzz: setup ## fuzz every parser and pipeline (SECONDS each: FUZZ_SECONDS, default 30)
	@tools/fuzz.sh

miri: ## interpret the tests of unsafe code and of the parsers under Miri (needs a nightly toolchain, says so without)
	@tools/miri.sh

pins: ## make requirements/*.txt anew from requirements/*.in
	cd requirements && ../.venv/bin/uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-header dev.in -o dev.txt
	cd requirements && ../.venv/bin/uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-header -c dev.txt runtime.in -o runtime.txt

clean: ## remove what was built and written here
	rm -rf out .venv gateway/dataplane/target
