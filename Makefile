# The two commands are `make run` and `make test`; the rest serves those who work on Forebay.

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export FOREBAY_BIN ?= $(CARGO_TARGET_DIR)/release/forebay
PYTEST := .venv/bin/python -m pytest -q -p no:cacheprovider
# One selection of packages for every build: features are resolved over it, so nothing is compiled twice.
BUILD := cargo build --release --workspace
N ?= 20
ROWS ?= 1000000
ROUNDS ?= 3

.PHONY: build run run-ceph run-both setup test test-rust test-flight test-crash test-mount test-python test-ballista test-ceph test-hdfs test-emulators test-spark test-webhdfs test-clients crash sim bench bench-spark lint format fmt doc

build:
	$(BUILD)

run: build ## TPC-H features written by DataFusion, followed by a trainer, persisted meanwhile
	$(CARGO_TARGET_DIR)/release/pipeline --forebay $(FOREBAY_BIN)

run-ceph: build ## the same into a real one-node Ceph, every object verified
	tests/setup.sh ceph
	tests/ceph/with.sh $(CARGO_TARGET_DIR)/release/pipeline --forebay $(FOREBAY_BIN) --ceph

run-both: build ## the same with Ceph and HDFS in one namespace: inputs read through from HDFS, results persisted to both
	tests/setup.sh ceph
	tests/setup.sh hdfs
	FOREBAY_HDFS_BLOCK=128m tests/ceph/with.sh tests/hdfs/with.sh $(CARGO_TARGET_DIR)/release/pipeline --forebay $(FOREBAY_BIN) --ceph --hdfs

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

test-python: build ## the package of connectors/python, with PyTorch, TensorFlow and the libraries that open forebay://
	tests/setup.sh torch
	$(PYTEST) connectors/python/tests

test-ballista: build ## a scheduler and two executors; a workspace of its own, compiled and linted at once
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/ballista RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__ \
	  cargo test --locked --manifest-path connectors/ballista/Cargo.toml $(BALLISTA) -- --test-threads 1

test-ceph: build ## with an HDFS beside it for the job that has both in one namespace
	tests/setup.sh ceph
	tests/setup.sh hdfs
	tests/ceph/with.sh tests/ceph/suite.sh

test-hdfs: build
	tests/setup.sh hdfs
	tests/hdfs/with.sh tests/hdfs/suite.sh

test-emulators: build ## other clouds: gs:// and az://
	tests/setup.sh emulators
	tests/emulators/with.sh tests/emulators/suite.sh

test-spark: build ## PySpark with two executors against the connector's jar
	tests/setup.sh torch
	tests/setup.sh spark
	$(PYTEST) tests/spark

test-webhdfs: build ## the REST door, by plain HTTP, by Hadoop's shell, and by Hadoop's own contract tests
	tests/setup.sh webhdfs
	tests/setup.sh spark
	$(PYTEST) tests/webhdfs

test-clients: build ## Arrow's integration scenario of Flight, by its clients for C++, Java and Go
	tests/setup.sh clients
	$(PYTEST) -s tests/clients

crash: setup build ## make crash N=500: N kills, N*2/5 power cuts, and as many under the mount
	.venv/bin/python -m tests.crash --kills $(N) --cuts $$(( $(N) * 2 / 5 ))
	.venv/bin/python -m tests.mount --kills $(N) --cuts $$(( $(N) * 2 / 5 ))

sim: ## make sim N=1000: seeds of the simulated engine, disk and store
	FOREBAY_SIM_SEEDS=$(N) cargo test --release -p forebay-writeback --test engine simulation -- --nocapture

bench: setup build ## the ratios of bench/README.md, measured here
	$(CARGO_TARGET_DIR)/release/forebay-bench --forebay $(FOREBAY_BIN) --folder $(CARGO_TARGET_DIR)/bench

bench-spark: build ## Spark into Forebay by each way beside Spark straight into the same store: make bench-spark ROWS=3000000 ROUNDS=5
	tests/setup.sh ceph
	tests/setup.sh hdfs
	tests/setup.sh spark
	tests/ceph/with.sh tests/hdfs/with.sh .venv/bin/python bench/spark.py --rows $(ROWS) --rounds $(ROUNDS)

lint: format
	cargo clippy --release --workspace --all-targets -- -D warnings

format: ## formatting and licences: of `lint` what a build does not tell
	cargo fmt --all --check
	cargo fmt --check --manifest-path connectors/ballista/Cargo.toml
	! command -v cargo-deny >/dev/null || { cargo deny check && cargo deny --manifest-path connectors/ballista/Cargo.toml check --config deny.toml; }

fmt:
	cargo fmt --all

doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --release --workspace --no-deps --document-private-items
