# The two commands are `make run` and `make test`; the rest serves those who work on Forebay.

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export FOREBAY_BIN ?= $(CARGO_TARGET_DIR)/release/forebay
PYTEST := .venv/bin/python -m pytest -q -p no:cacheprovider
# One selection of packages for every build: features are resolved over it, so nothing is compiled twice.
BUILD := cargo build --release --workspace
N ?= 20

.PHONY: build run run-ceph setup test test-rust test-flight test-crash test-mount test-ceph test-hdfs crash sim bench lint fmt doc

build:
	$(BUILD)

run: build ## TPC-H features written by DataFusion, followed by a trainer, persisted meanwhile
	$(CARGO_TARGET_DIR)/release/pipeline --forebay $(FOREBAY_BIN)

run-ceph: build ## the same into a real one-node Ceph, every object verified
	tests/setup.sh ceph
	tests/ceph/with.sh $(CARGO_TARGET_DIR)/release/pipeline --forebay $(FOREBAY_BIN) --ceph

setup:
	tests/setup.sh

test: ## every suite, bounded; prints one summary
	tests/all.sh

test-rust: setup
	cargo test --release --workspace

test-flight: setup build
	$(PYTEST) tests/flight tests/cli tests/test_docs.py

test-crash: setup build
	$(PYTEST) -s tests/crash

test-mount: build ## FOREBAY_TEST_PLAIN=1 puts ext4 in Forebay's place, FOREBAY_MOUNT_LONG=1 runs every seed
	tests/setup.sh mount
	$(PYTEST) -s tests/mount

test-ceph: build
	tests/setup.sh ceph
	tests/ceph/with.sh tests/ceph/suite.sh

test-hdfs: build
	tests/setup.sh hdfs
	tests/hdfs/with.sh tests/hdfs/suite.sh

crash: setup build ## make crash N=500: N kills, N*2/5 power cuts, and as many under the mount
	.venv/bin/python -m tests.crash --kills $(N) --cuts $$(( $(N) * 2 / 5 ))
	.venv/bin/python -m tests.mount --kills $(N) --cuts $$(( $(N) * 2 / 5 ))

sim: ## make sim N=1000: seeds of the simulated engine, disk and store
	FOREBAY_SIM_SEEDS=$(N) cargo test --release -p forebay-writeback --test simulation -- --nocapture

bench: setup build ## the ratios of bench/README.md, measured here
	$(CARGO_TARGET_DIR)/release/forebay-bench --forebay $(FOREBAY_BIN) --folder $(CARGO_TARGET_DIR)/bench

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	! command -v cargo-deny >/dev/null || cargo deny check

fmt:
	cargo fmt --all

doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --release --workspace --no-deps --document-private-items
