# `make demo` shows it, `make test` proves it. Both start from a fresh clone and leave nothing
# running; `make help` lists the rest.

.DEFAULT_GOAL := help
.PHONY: help build demo bench bench-micro bench-fleet test test-long conformance fuzz lint fmt

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

build: ## everything, with tests
	cargo build --workspace --all-targets

demo: ## one governed call end to end, told for people (KEEP=1 keeps it running)
	@./deploy/demo/run.sh

test: ## all checks against real etcd and Kafka; ends with "N passed, N failed"
	@./deploy/test/run.sh

bench: ## the table of targets on a release build; reports go to target/bench
	@./loadtest/bench.sh

bench-fleet: ## one control plane, 1,000 proxies, 10,000 servers, 100,000 tools: how changes reach them
	@./loadtest/fleet.sh

bench-micro: ## figures of the pure parts, each by itself
	cargo bench -p weir-model --bench decide --bench validate --bench seal --bench snapshot
	cargo bench -p weir-model --bench apply -- 100000
	cargo bench -p weir-audit --no-default-features --bench spool --bench render
	cargo bench -p data-plane --bench envelope

test-long: ## other people's servers and clients, conformance across eras and over two proxies
	@./deploy/test/run-long.sh

conformance: ## the MCP conformance suite, without and through the gateway, check by check
	@./deploy/test/conformance.sh

fuzz: ## the laws of parsers, framers, names and sealed tokens on mutations (SECS=60 for each)
	WEIR_FUZZ_SECS=$(or $(SECS),60) cargo test -p weir --test it -- laws::of_mutations --nocapture

lint: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt --all
