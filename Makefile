# The usual targets. Each calls cargo or a script; there is no logic here.

.PHONY: help run build test quick unit fmt lint docs bench counts faults fuzz deny generate

help: ## Lists the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## A node on 127.0.0.1:8080
	cargo run --release

build: ## The release binary, target/release/hubbub
	cargo build --release --locked

test: ## Everything that CI runs
	scripts/test

quick: ## Format, lints, docs and the tests without real clients (under 5 minutes)
	scripts/test quick

unit: ## Unit tests of the library (seconds once built)
	cargo test --lib

fmt: ## Formats the code
	cargo fmt --all

lint: ## Clippy, with warnings as errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

docs: ## The API documentation, with private items
	cargo doc --workspace --no-deps --document-private-items --locked

deny: ## Licences, banned crates and sources of the dependencies
	scripts/deny

bench: ## Measures hubbub beside other servers (50 minutes on a quiet machine)
	scripts/bench

counts: ## Instruction counts, compared with the stored ones
	scripts/counts

faults: ## The fault lab, long form
	scripts/faults

fuzz: ## Every decoder with random input, a minute each
	scripts/fuzz

generate: ## Rewrites the generated documents (docs/configuration.md, .env.example, ...)
	UPDATE_GENERATED=1 cargo test --lib generated
