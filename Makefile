# The two commands: `make run` starts the whole server, `make test` passes every test.
# Build output is cached outside the clone, so that RocksDB (20 to 35 minutes) is compiled once a machine.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/ringline/target
# Filled by .ci/setup where the system's Node.js is too old.
export PATH := $(HOME)/.cache/ringline/node/node_modules/.bin:$(PATH)
DATA_DIR ?= $(HOME)/.local/share/ringline
BIN := $(CARGO_TARGET_DIR)/debug
WEB := clients/web
WEB_SOURCES = $(shell find $(WEB)/src $(WEB)/public $(WEB)/build wire-protocol/proto -type f 2>/dev/null)
# RocksDB's library, built by the first target that needs it. If that fails nothing goes on without it.
CARGO = library=$$(.ci/rocksdb) && ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$$library" cargo

.PHONY: run terminal test test-upgrade fuzz lint setup setup-test web help

help:
	@echo 'make run       install what is missing, build, start the server; it names the chat page'
	@echo 'make terminal  build and start the terminal client against that server (ARGS="--help")'
	@echo 'make test      install what is missing, build, run every test'
	@echo 'make test-upgrade  upgrade a fleet from the commit before this one, under load (ARGS="REVISION"; as root)'
	@echo 'make fuzz      look for inputs that break something (ARGS="--seconds 600 apply tokens")'
	@echo 'make lint      formatting, clippy with warnings denied, licences and sources'

run: setup web
	$(CARGO) build --locked -p gateway
	@mkdir -p '$(DATA_DIR)'
	exec '$(BIN)/ringline-gateway' --data-dir '$(DATA_DIR)' $(ARGS)

terminal: setup
	$(CARGO) build --locked -p ringline-terminal
	exec '$(BIN)/ringline-terminal' $(ARGS)

# Every binary first: tests start the servers as processes. What this machine refuses to tests is named, and is no
# failure; only where RINGLINE_TEST_RIGHTS says what it gives do tests insist on it (.ci/run).
test: setup-test web
	@[ -n "$${RINGLINE_TEST_RIGHTS+given}" ] || .ci/rights >/dev/null
	$(CARGO) build --locked --workspace --all-targets
	$(CARGO) test --locked --workspace
	cd $(WEB) && npm test
	RINGLINE_BIN_DIR='$(BIN)' $(WEB)/e2e/run.sh

test-upgrade: setup-test
	bench/upgrade.sh $(ARGS)

fuzz: setup-test
	bench/fuzz/run.sh $(ARGS)

lint: setup-test web
	cargo fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	.ci/deny

setup:
	@.ci/setup run

setup-test:
	@.ci/setup test

web: setup $(WEB)/dist/index.html

$(WEB)/node_modules/.installed: $(WEB)/package.json $(WEB)/package-lock.json
	cd $(WEB) && npm ci --no-audit --no-fund
	@touch $@

$(WEB)/dist/index.html: $(WEB)/node_modules/.installed $(WEB_SOURCES)
	cd $(WEB) && npm run build
	@touch $@
