# podwire. `make` alone lists the targets.
SHELL      := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON     ?= python3
VENV       := .venv
PY         := $(VENV)/bin/python
CLANG      ?= clang-16
LLVM_STRIP ?= llvm-strip-16
BUILD      := build
# Plain `su` leaves out where bpftool and dpkg's tools are.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

APT := clang-16 clang-format-16 llvm-16 gcc libc6-dev libbpf-dev libelf-dev zlib1g-dev bpftool iproute2 iptables nftables \
       iputils-ping curl socat python3-venv python3-dev
APT_TEST := iperf3 conntrack ethtool tcpdump

BPF_SOURCES := $(wildcard bpf/*.bpf.c)
BPF_HEADERS := $(wildcard bpf/lib/*.h) $(wildcard bpf/abi/*.h) $(wildcard bpf/kernel/*.h) $(wildcard bpf/ctx/*.h)
# Each source twice: for the kernels of today and, from the same lines, for those before Linux 6.1.
BPF_OBJECTS := $(patsubst bpf/%.bpf.c,$(BUILD)/bpf/%.bpf.o,$(BPF_SOURCES)) \
               $(patsubst bpf/%.bpf.c,$(BUILD)/bpf/legacy/%.bpf.o,$(BPF_SOURCES))
BPF_CFLAGS  := -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter \
               -Wno-missing-declarations -Wno-address-of-packed-member -I$(BUILD)/include -Ibpf

.PHONY: help setup build objects demo peers test test-kernels test-kernels-whole test-unit lint soak bench gen clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(BUILD)/.apt $(BUILD)/.venv build ## install what is needed, build programs and modules

# Packages are installed only where something is missing, so a second run needs no network.
$(BUILD)/.apt: Makefile
	@mkdir -p $(BUILD)
	@missing=$$(for p in $(APT) $(APT_TEST); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then echo "These packages are missing; install them as root and run make again:" $$missing >&2; exit 1; fi; \
	  echo "Installing system packages:" $$missing; \
	  apt-get update -q >$(BUILD)/apt.log 2>&1 && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >>$(BUILD)/apt.log 2>&1 \
	  || { tail -5 $(BUILD)/apt.log >&2; echo "Could not install packages; the whole log is in $(BUILD)/apt.log" >&2; exit 1; }; fi
	@touch $@

$(BUILD)/.venv: pyproject.toml $(BUILD)/.apt
	@mkdir -p $(BUILD)
	@echo "Making the virtual environment"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[dev]' >$(BUILD)/pip.log 2>&1 \
	 || { tail -5 $(BUILD)/pip.log >&2; echo "Could not install Python packages; the whole log is in $(BUILD)/pip.log" >&2; exit 1; }
	@touch $@

objects: $(BPF_OBJECTS)

build: objects $(BUILD)/.libbpf $(BUILD)/podwire-init ## compile the BPF objects, the libbpf module and the pod's init

$(BUILD)/include/vmlinux.h: | $(BUILD)/.apt
	@mkdir -p $(@D)
	@bpftool btf dump file /sys/kernel/btf/vmlinux format c > $@.tmp && mv $@.tmp $@

define compile_bpf
@mkdir -p $(@D)
@echo "  BPF  $@"
@$(CLANG) $(BPF_CFLAGS) -include $(1) -include bpf/ctx/skb.h -c $< -o $@.tmp
@$(LLVM_STRIP) -g $@.tmp && mv $@.tmp $@
endef

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) $(BUILD)/include/vmlinux.h
	$(call compile_bpf,bpf/kernel/modern.h)

$(BUILD)/bpf/legacy/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) $(BUILD)/include/vmlinux.h
	$(call compile_bpf,bpf/kernel/legacy.h)

$(BUILD)/.libbpf: src/podwire/bpf/_build.py src/podwire/bpf/shim.c $(BUILD)/.venv
	@echo "  CFFI podwire.bpf._libbpf"
	@$(PY) src/podwire/bpf/_build.py >$(BUILD)/cffi.log 2>&1 || { tail -20 $(BUILD)/cffi.log >&2; exit 1; }
	@touch $@

$(BUILD)/podwire-init: src/podwire/sandbox/init.c $(wildcard src/podwire/sandbox/init_*.h) | $(BUILD)/.apt
	@echo "  CC   $@"
	@gcc -O2 -Wall -Wextra -Werror -static -o $@ $<

gen: $(BUILD)/.venv ## write the generated mirrors anew (src/podwire/abi, src/podwire/api, docs/reference)
	@$(PY) tools/gen_abi.py
	@$(PY) tools/gen_api.py
	@$(PY) tools/gen_docs.py

demo: setup ## bring up a cluster, try a policy and a service in it, show the flows, remove everything
	@$(VENV)/bin/podwire demo

test: setup ## run all tests (as root; without root only the unit tests)
	@$(PY) -m pytest $(TESTS)

peers: ## build the unmodified third-party programs that tests/compat drives (Go modules; about 15 minutes once)
	@if ! command -v go >/dev/null; then echo "Go is not installed: the tests that need these programs are skipped"; exit 0; fi; \
	for each in "hubble hubble" "hubble hubble-relay" "cilium cilium-dbg" "cilium cilium-cni" "kube-proxy"; do \
	  tools/build-$$each || echo "build-$$each failed; the tests that need it are skipped"; done

test-kernels: setup ## load and try on Linux 5.10 to the newest, in emulated machines (as root)
	@$(PY) -m pytest -m kernels tests/kernels $(TESTS)

test-kernels-whole: setup ## the same, and all packet tests on two of them (about 25 minutes)
	@PODWIRE_KERNELS_WHOLE=1 $(PY) -m pytest -m kernels tests/kernels $(TESTS)

test-unit: setup ## run the tests that need neither root nor a kernel
	@$(PY) -m pytest -m "not kernel and not cluster and not compat" tests/unit tests/docs

lint: setup ## format check, lint, types, layers, generated files
	@$(VENV)/bin/ruff format --check -q src tests tools
	@$(VENV)/bin/ruff check -q src tests tools
	@$(VENV)/bin/lint-imports >$(BUILD)/imports.log 2>&1 || { cat $(BUILD)/imports.log >&2; exit 1; }
	@$(VENV)/bin/mypy --no-error-summary
	@clang-format-16 --dry-run -Werror $(BPF_SOURCES) $(BPF_HEADERS)
	@$(PY) tools/gen_abi.py --check
	@$(PY) tools/gen_api.py --check
	@$(PY) tools/gen_docs.py --check
	@echo "format, lint, layers, types and generated files: as they should be"

soak: setup ## kill, stop and delay every process of a sandbox for PODWIRE_CHAOS_SECONDS (default here: 600)
	@PODWIRE_CHAOS_SECONDS=$${PODWIRE_CHAOS_SECONDS:-600} $(PY) -m pytest -s tests/cluster/chaos

bench: setup ## measure, against peers built in the same run; prints ratios
	@$(PY) tests/bench/run.py $(BENCH)

clean: ## remove what was built (not the system packages)
	@rm -rf $(BUILD) $(VENV)
	@find src -name '_libbpf*.so' -delete
