# redis-infer: build, demo and tests. `make help` lists the targets.
# Every target does the set-up it needs; there is one profile, release, because llama.cpp takes minutes for each.

SHELL := bash
.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: help build demo serve test test-unit test-redis lint bench chunk-kv quality scale hostile soak fuzz setup models clean setup-build setup-run

# Where things are: cache, cargo target folder, redis-server, models.
ENV := set -eu; . scripts/env.sh;

build: setup-build ## compile the module and the companion program (default)
	@$(ENV) cargo build --release --workspace
	@$(ENV) say "built $$(module_path)"

demo: setup-run build models ## ask three questions about this project's own source code, in a server that is then stopped
	@scripts/demo.sh

serve: setup-run build models ## keep such a server running in the foreground; PORT=6379, data in data/
	@PORT="$(PORT)" scripts/serve.sh

test: setup build models ## run every test; ARGS="..." goes to cargo test
	@$(ENV) export_test_env; cargo test --release --workspace $(ARGS)

test-unit: setup-build ## run the tests that need neither a server nor a model
	@$(ENV) cargo test --release --workspace --lib --bins --test layering --test scripts $(ARGS)

test-redis: setup build models ## run the tests against real servers only
	@$(ENV) export_test_env; cargo test --release --workspace --test server $(ARGS)

lint: setup-build ## formatting, clippy, rustdoc and, when it is installed, shellcheck: a warning is an error
	@$(ENV) cargo fmt --all --check
	@$(ENV) cargo clippy --release --workspace --all-targets -- -D warnings
	@$(ENV) RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
	@$(ENV) if command -v shellcheck >/dev/null; then shellcheck -x -P scripts scripts/*.sh .ci/run; \
	    else say "shellcheck is not installed: the shell scripts were not checked"; fi

bench: setup-run build models ## compare with llama-server, write docs/BENCHMARKS.md; QUICK=1, ROWS=F1,F2, LLAMA_SERVER=path
	@QUICK="$(QUICK)" ROWS="$(ROWS)" OUT="$(OUT)" LLAMA_SERVER="$(LLAMA_SERVER)" scripts/bench.sh

chunk-kv: setup-run build models ## what chunks that are read by themselves (KV CHUNK) save, and what that costs in answers; EVERY=2
	@scripts/chunk-kv.sh

quality: setup-run build models ## how often INFER.SEARCH finds the right chunk, with labelled questions about real files, beside BM25
	@scripts/quality.sh

scale: setup-run build models ## what a search and an ingest cost as an index grows to 100,000 chunks; draws docs/scale.svg
	@scripts/scale.sh

hostile: setup-run build models ## inputs that once ended, stalled or bloated a server, and what comes of them now; ROWS=1,4
	@ROWS="$(ROWS)" MODULE="$(MODULE)" scripts/hostile.sh

soak: setup-run build models ## random commands from several clients for MINUTES=10; NICE=20, BUSY=1; fails when memory grows or anything hangs
	@NICE="$(NICE)" BUSY="$(BUSY)" HUNG="$(HUNG)" scripts/soak.sh "$(MINUTES)"

fuzz: setup-build ## hostile grammars, schemas, filters, attributes, messages, token blobs and model headers for MINUTES=10
	@$(ENV) export REDIS_INFER_FUZZ_SECONDS=$$(( $(or $(MINUTES),10) * 60 / 7 )); \
	    nice cargo test --release --lib engine::tests::fuzz -- --test-threads 1 --nocapture

setup: ## install and fetch what building, running and testing need (root and apt; otherwise it says what to install)
	@scripts/setup.sh test

models: ## fetch the models and convert MiniLM to GGUF; needs the build
	@scripts/models.sh

clean: ## remove what was compiled; downloads, models and data/ stay
	@$(ENV) cargo clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup-build:
	@scripts/setup.sh build

setup-run:
	@scripts/setup.sh run
