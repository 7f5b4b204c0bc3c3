# Start here. `make demo` and `make test` need only Python >= 3.11 and a Rust toolchain.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

.PHONY: demo run build wheel sbom check check-rust check-python check-licences audit test .rust-tests lock bench bench-scale fuzz mutations campaign clean

## demo: build, then show adding, proving, verifying and tampering on a temporary server
demo: $(VENV)/.installed
	@$(BIN)/python docs/demo.py

## run: serve on 127.0.0.1:8800 until stopped, data in ./qed-data
run: $(VENV)/.installed
	$(BIN)/qed-server

## build: the wheel and lists of all that it contains, in dist/
build: sbom

DIST ?= dist
wheel: $(VENV)/.tools
	$(BIN)/maturin build --release --out $(DIST)

## sbom: what the wheel contains (Rust) and requires (Python), as CycloneDX; the wheel holds the first one, too
sbom: wheel $(VENV)/audit/.tools
	rm -rf $(DIST)/.wheel
	$(BIN)/python -m zipfile --extract "$$(ls -t $(DIST)/*.whl | head -n 1)" $(DIST)/.wheel
	cp $(DIST)/.wheel/*.dist-info/sboms/*.json $(DIST)/qed-log-rust.cyclonedx.json
	rm -rf $(DIST)/.wheel
	$(VENV)/audit/bin/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file $(DIST)/qed-log-python.cyclonedx.json

## check: format, lints, types, licences, floors
check: check-rust check-python check-licences

check-rust: $(VENV)/.tools
	cargo fmt --all --check
	for crate in bench/load bench/lsm bench/raftos/engine fuzz; do cargo fmt --check --manifest-path $$crate/Cargo.toml || exit 1; done
	cargo clippy --workspace --all-targets -- -D warnings
	for crate in bench/load bench/raftos/engine; do \
		cargo clippy --manifest-path $$crate/Cargo.toml --target-dir target --all-targets -- -D warnings || exit 1; done
	cargo check --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir target
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

check-python: $(VENV)/.installed
	$(BIN)/ruff format --check python tests bench docs .ci
	$(BIN)/ruff check python tests bench docs .ci
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest qed._qed

check-licences:
	$(CARGO_DENY)
	cargo deny --log-level error check bans licenses sources

# Nobody debugs it, and without debug information it is compiled sooner.
CARGO_DENY = cargo deny --version >/dev/null 2>&1 || \
	CARGO_PROFILE_DEV_DEBUG=false cargo install --debug --locked --quiet cargo-deny@0.20.2

## audit: known vulnerabilities in the locked dependencies, as far as the databases of advisories can be reached
audit: $(VENV)/audit/.tools
	$(CARGO_DENY)
	$(VENV)/audit/bin/python .ci/audit.py

## test: everything that CI runs
test:
	@# The last steps of a release build are single-threaded, so two things are made at once.
	$(MAKE) --no-print-directory -j2 --output-sync check .rust-tests $(VENV)/audit/.tools
	-$(MAKE) --no-print-directory $(VENV)/peers/.tools
	cargo test --workspace --release --quiet
	@# Once more as on a processor without instructions for SHA-256.
	QED_SHA256_LANES=1 cargo test --release --quiet -p qed-sha256 -p qed-core
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder
	$(MAKE) --no-print-directory demo

# The Rust tests, compiled. After the package: both are built in one folder, where cargo lets only one build run.
.rust-tests: $(VENV)/.installed
	cargo test --workspace --release --quiet --no-run

## lock: requirements*.txt from pyproject.toml; UPGRADE=--upgrade takes the newest versions, otherwise locked ones stay
UPGRADE ?=
LOCK = $(VENV)/audit/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(UPGRADE)
lock: $(VENV)/audit/.tools
	$(LOCK) --output-file requirements.txt --all-extras pyproject.toml
	$(LOCK) --output-file requirements-dev.txt --constraints requirements.txt --group dev --all-extras pyproject.toml
	$(LOCK) --output-file requirements-audit.txt --group audit
	$(LOCK) --output-file requirements-plots.txt --group plots

## bench: every number of bench/README.md, each beside its target
bench: $(VENV)/.installed
	cargo bench --quiet -p qed-sha256 --bench lanes
	$(BIN)/python bench/run.py
	$(BIN)/python bench/cluster.py
	$(BIN)/python bench/steps.py
	$(BIN)/python bench/backup.py
	$(BIN)/python bench/witness.py
	$(BIN)/python bench/compare.py . --only key

## bench-scale: how a log grows to MILLIONS of events, with plots; 100 million need 13 GB of disk and half an hour
MILLIONS ?= 1 10 20 30 100
bench-scale: $(VENV)/.tools $(VENV)/plots/.tools
	$(BIN)/python bench/scale.py $(MILLIONS)
	$(VENV)/plots/bin/python bench/plots.py

## fuzz: cargo-fuzz on decoding and verification of proofs, notes, tiles, receipts and evidence, and on SHA-256, FUZZ_S seconds a target
FUZZ_S ?= 300
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz:
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz@0.13.2
	for target in $(FUZZ_TARGETS); do cargo fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_S) || exit 1; done

## mutations: MUTATIONS changes at random to each format that is signed, and to proofs, states and memories; none may be accepted
MUTATIONS ?= 1000000
mutations: $(VENV)/.installed
	QED_MUTATIONS=$(MUTATIONS) cargo test --release -p qed-core --test tlog damage
	QED_MUTATIONS=$(MUTATIONS) $(BIN)/python -m pytest tests/test_mutations.py tests/test_damaged_state.py -k "damage"

## campaign: ten minutes of faults on three real members, then an audit of everything they acknowledged
campaign: $(VENV)/.installed
	cd tests && $(abspath $(BIN))/python -m campaign --minutes 10

clean:
	rm -rf $(VENV) dist target

# The tools, in the locked versions of requirements-dev.txt.
$(VENV)/.tools: requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	touch $@

$(VENV)/plots/.tools: requirements-plots.txt
	test -d $(VENV)/plots || $(PYTHON) -m venv $(VENV)/plots
	$(VENV)/plots/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-plots.txt
	touch $@

# The tools that audit and lock, beside the others.
$(VENV)/audit/.tools: requirements-audit.txt
	mkdir -p $(VENV)
	test -d $(VENV)/audit || $(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-audit.txt
	touch $@

# Other implementations, for tests that are skipped without them. They are no part of the environment.
$(VENV)/peers/.tools: requirements-peers.txt $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --ignore-requires-python \
		--upgrade --target $(VENV)/peers --requirement requirements-peers.txt
	touch $@

# The package, compiled in release mode: a debug build makes the tests too slow.
$(VENV)/.installed: $(VENV)/.tools pyproject.toml $(RUST_SOURCES)
	env -u CONDA_PREFIX VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	touch $@
