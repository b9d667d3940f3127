# The two commands are `make run` and `make test`; the rest serves those who work on Forebay.

export CARGO_TARGET_DIR ?= $(CURDIR)/target
FOREBAY := $(CARGO_TARGET_DIR)/release/forebay
PYTEST := FOREBAY_BIN=$(FOREBAY) .venv/bin/python -m pytest -q -p no:cacheprovider
N ?= 20

.PHONY: build run run-ceph test test-rust test-flight test-crash test-ceph crash bench lint fmt doc setup

build:
	cargo build --release -p forebay

run: ## TPC-H features written by DataFusion, followed by a trainer, persisted meanwhile
	cargo build --release -p forebay -p forebay-examples
	$(CARGO_TARGET_DIR)/release/pipeline --forebay $(FOREBAY)

run-ceph: ## the same into a real one-node Ceph
	tests/setup.sh ceph
	cargo build --release -p forebay -p forebay-examples
	tests/ceph/with.sh $(CARGO_TARGET_DIR)/release/pipeline --forebay $(FOREBAY) --ceph

setup:
	tests/setup.sh

test: ## every suite, bounded; prints one summary
	tests/all.sh

test-rust: setup
	cargo test --release --workspace

test-flight: setup build
	$(PYTEST) tests/flight tests/cli

test-crash: setup build
	$(PYTEST) tests/crash

test-ceph:
	tests/setup.sh ceph
	tests/ceph/with.sh tests/ceph/suite.sh

crash: setup build ## make crash N=500: N kills, N*2/5 power cuts
	FOREBAY_BIN=$(FOREBAY) .venv/bin/python -m tests.crash --kills $(N) --cuts $$(( $(N) * 2 / 5 ))

bench:
	cargo build --release -p forebay -p forebay-bench
	$(CARGO_TARGET_DIR)/release/forebay-bench --forebay $(FOREBAY)

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	! command -v cargo-deny >/dev/null || cargo deny check

fmt:
	cargo fmt --all

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
