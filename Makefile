# Two commands for a newcomer: `make run` (the daemon answers on a real model) and `make test`. Both do their own set-up.
# MODEL=path runs another model. CARGO_TARGET_DIR is honoured.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test test-x86 test-arm64 cross bench thermal install install-clock install-pi lint clean

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
ARM64 := aarch64-unknown-linux-gnu

help: ## show what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: ## build, fetch the default model once, start hearthd and ask it over the socket and the bus
	@setup/packages run
	cargo build --release --bins
	@setup/demo "$(TARGET_DIR)/release" "$${MODEL:-$$(setup/model smollm2)}"

test: ## everything: unit, golden, oracle, protocol, daemon; then the same under emulated ARM64 CPUs
	@setup/packages test
	@$(MAKE) --no-print-directory test-x86; native=$$SECONDS; \
	if [ "$$(uname -m)" != aarch64 ]; then $(MAKE) --no-print-directory test-arm64; fi; \
	took() { echo "$$(($$1 / 60)) min $$(($$1 % 60)) s"; }; \
	echo "make test: all is well; this machine $$(took $$native), emulated ARM64 $$(took $$((SECONDS - native))), what was built included"

# Two tests a core: those of the daemon mostly wait for it.
test-x86: ## the tests on this machine
	smollm2=$$(setup/model smollm2); gemma3=$$(setup/model gemma3); python=$$(setup/python); \
	export RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))}; \
	HEARTH_SMOLLM2=$$smollm2 HEARTH_GEMMA3=$$gemma3 HEARTH_PYTHON=$$python dbus-run-session -- cargo test --workspace

test-arm64: ## kernels, formats and models under qemu as a Cortex-A72, a Cortex-A76 and one with everything; the loops as compiled
	rustc=$$(setup/target); smollm2=$$(setup/model smollm2); RUSTC_ARM64=$$rustc cross/test-arm64 "$$smollm2"; \
	RUSTC_ARM64=$$rustc cross/check-micro-kernels

cross: ## both binaries for aarch64, glibc 2.36 and newer
	@setup/packages cross
	rustc=$$(setup/target); RUSTC=$$rustc cargo build --release --bins --target $(ARM64)
	@ls -l $(TARGET_DIR)/$(ARM64)/release/hearth $(TARGET_DIR)/$(ARM64)/release/hearthd

bench: ## the promised speeds, with the figures of this machine; BENCH="types start" measures some groups only
	HEARTH_SMOLLM2=$$(setup/model smollm2) HEARTH_GEMMA3=$$(setup/model gemma3) cargo bench --bench targets -- $(BENCH)

thermal: ## the promises about heat, against the simulator
	cargo run --release --example thermal

# BIN is the folder with the two binaries: target/release of this machine, or of aarch64 when packing for a board with DESTDIR.
BIN ?= $(TARGET_DIR)/release
install: ## as root: binaries, units, bus policy, user and folders (DESTDIR and BIN are honoured)
	install -Dm755 $(BIN)/hearth $(DESTDIR)/usr/bin/hearth
	install -Dm755 $(BIN)/hearthd $(DESTDIR)/usr/libexec/hearth/hearthd
	install -Dm644 systemd/hearthd.service systemd/hearthd.socket -t $(DESTDIR)/usr/lib/systemd/system
	install -Dm644 systemd/hearth.sysusers $(DESTDIR)/usr/lib/sysusers.d/hearth.conf
	install -Dm644 systemd/hearth.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/hearth.conf
	install -Dm644 systemd/dbus/org.hearth.Hearth1.conf -t $(DESTDIR)/usr/share/dbus-1/system.d
	install -Dm644 systemd/dbus/org.hearth.Hearth1.service -t $(DESTDIR)/usr/share/dbus-1/system-services
	install -Dm644 systemd/dbus/*.xml -t $(DESTDIR)/usr/share/dbus-1/interfaces
	install -Dm644 systemd/hearth.catalog -t $(DESTDIR)/usr/lib/systemd/catalog
	install -Dm644 config/grafana-dashboard.json -t $(DESTDIR)/usr/share/hearth
	[ -e $(DESTDIR)/etc/hearth/hearthd.toml ] || install -Dm644 config/hearthd.toml -t $(DESTDIR)/etc/hearth
	if [ -z "$(DESTDIR)" ]; then systemd-sysusers && systemd-tmpfiles --create hearth.conf && systemctl daemon-reload && journalctl --update-catalog; fi

install-clock: ## as root: let the daemon lower the processors' clock where that pays (see systemd/clock.conf)
	install -Dm644 systemd/clock.conf -t $(DESTDIR)/etc/systemd/system/hearthd.service.d
	install -Dm644 systemd/clock.tmpfiles $(DESTDIR)/etc/tmpfiles.d/hearth-clock.conf
	if [ -z "$(DESTDIR)" ]; then systemd-tmpfiles --create hearth-clock.conf && systemctl daemon-reload && systemctl try-restart hearthd; fi

install-pi: ## as root: let the daemon ask a Raspberry Pi's firmware for its clock and its troubles (see systemd/raspberry-pi.conf)
	install -Dm644 systemd/raspberry-pi.conf -t $(DESTDIR)/etc/systemd/system/hearthd.service.d
	if [ -z "$(DESTDIR)" ]; then systemctl daemon-reload && systemctl try-restart hearthd; fi

lint: ## format, clippy without warnings, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	if [ -d "$$(rustc --print sysroot)/lib/rustlib/$(ARM64)/lib" ]; then cargo clippy -p hearth-kernels --all-targets --target $(ARM64) -- -D warnings; \
	else echo "lint: this toolchain has no $(ARM64); its kernels were not checked"; fi
	if command -v cargo-deny >/dev/null; then cargo deny check; else echo "lint: cargo-deny is not installed; licences were not checked"; fi

clean: ## remove what was built (the cache folder with models stays)
	cargo clean
