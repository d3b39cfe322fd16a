# selinux-provision. "make" alone lists what there is to make.
#
# It needs Debian 12 or later, root or a user with sudo, and Go; everything else it installs itself from Debian's packages.

GO_WANTED    := $(shell sed -n 's/^go //p' go.mod)
PACKAGES     := policycoreutils attr semodule-utils selinux-utils setools strace gcc libc6-dev procps util-linux systemd xfsprogs squashfs-tools chromium prometheus prometheus-node-exporter shellcheck \
                $(shell sed 's/\#.*//' vmtests/packages.txt)
BENCH_POLICY := selinux-policy-default auditd policycoreutils-python-utils
SUDO         := $(if $(filter 0,$(shell id -u)),,sudo)
# Git refuses to tell the commit of somebody else's directory, and go build then fails.
VCS          := $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false)

# The time of the files in archives and images: that of the sources, so that building again gives the same.
EPOCH        := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

SHELL := /bin/bash
# The administrator's programs are not in everybody's search path, and Go is where its own archive puts it.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
# No other version of Go is fetched than the one that is installed.
export GOTOOLCHAIN := local
# As the program is built, so that what it shares with tests, tools and linter is compiled once: on a fresh machine that is minutes.
export GOFLAGS     := $(GOFLAGS) -trimpath
export CGO_ENABLED := 0

# What is compiled belongs to whoever runs make; what needs root runs as root. Go's caches stay apart, so that no file of root's
# gets into the user's.
ifneq ($(SUDO),)
AS_ROOT = -exec "$(SUDO) -E env 'PATH=$$PATH' HOME=/root GOCACHE=/root/.cache/go-build 'GOMODCACHE=$$(go env GOMODCACHE)' 'GOFLAGS=-buildvcs=false -trimpath'"
endif
NATIVE = $$(go list ./... | grep -v '/vmtests')
# A test that fails is run once more, by itself, and named at the end: a machine that others keep busy fails no run, and a test that depends on that
# is seen. What fails twice, more than three tests, a data race, a panic and the end of the time fail at once.
# go vet is the linter's: to have it look at every dependency again for each pass takes a minute.
GO_TEST = go run gotest.tools/gotestsum@v1.13.0 --rerun-fails=1 --rerun-fails-max-failures=3 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race
# Those that start goroutines: the race detector has nothing to find in the others.
RACING = $$(grep -rlE --include='*.go' '(^|\s)go (func|[A-Za-z_.]+)\(|\.Go\(' . | grep -v '^./vmtests\|^./bench' | xargs -n1 dirname | sort -u)

.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: go ## the static binary, bin/selinux-provision
	packaging/build bin/selinux-provision $(VCS)

.PHONY: install-prerequisites
install-prerequisites: ## install the Debian packages that the tests need
	$(call install,$(PACKAGES))

.PHONY: test
test: install-prerequisites lint build test-native test-vm ## lint, and every test but test-vm-more, test-cluster and torture

.PHONY: test-native
test-native: go ## the tests that need no virtual machine, then again with the race detector
	@echo "== tests without a virtual machine"
	$(GO_TEST) --format standard-quiet --packages "$(NATIVE)" -- -vet=off -count=1 -timeout 45m $(AS_ROOT)
	@echo "== those that start goroutines with the race detector, without the long crash and error matrices"
	$(subst go run,go run -exec 'env CGO_ENABLED=1',$(GO_TEST)) --format standard-quiet --packages "$(RACING)" -- -race -short -vet=off -count=1 -timeout 40m $(AS_ROOT)

# How many power cuts for each way to lose what was not flushed: "every", or a number.
POWER_CUTS := every

.PHONY: torture-power
torture-power: install-prerequisites ## cut the power at every flush of an apply, a change, an update, a rollback, a revert and a trial, on each file system, with four releases of libsemanage: hours
	@echo "== every power cut, with parts of what came after it: hours; POWER_CUTS=8, as many of each kind, is one at most; make test takes a smaller one"
	SELINUX_PROVISION_POWER_CUTS=$(POWER_CUTS) go test -v -count=1 -timeout 1200m $(AS_ROOT) -run '^TestPowerCuts$$' ./stages

# How often each fuzz target runs. Some of them make files, and take hours for ten million.
FUZZ_EXECUTIONS := 10000000

.PHONY: torture
torture: torture-power torture-vm torture-storms torture-pressure torture-fuzz ## the long attacks: every power cut, machines whose power goes at random, storms beside the walk, hosts that run out of things, and each fuzz target ten million times: days

# How many power cuts of whole machines. VMTEST_SEED=N does the same again: the test names it.
VMTEST_CUTS := 50

.PHONY: torture-vm
torture-vm: build install-prerequisites ## cut the power of a virtual machine at VMTEST_CUTS=50 random instants of a first boot, an update's and one that enforces on trial: an hour and a half
	@echo "== $(VMTEST_CUTS) power cuts of a machine: a minute and a half each, and some five before the first"
	VMTEST_CUTS=$(VMTEST_CUTS) go test -v -count=1 -timeout 240m -tags more $(AS_ROOT) -run '^TestPowerCutsAtRandom$$' ./vmtests

.PHONY: torture-storms
torture-storms: install-prerequisites ## others make, move and link files at full speed while trees are labelled: a quarter of an hour
	@echo "== storms beside the walk: a quarter of an hour"
	go test -v -count=20 -timeout 60m $(AS_ROOT) -run '^(TestLiveVolume|TestMovedUnseen)$$' ./relabel
	SELINUX_PROVISION_TORTURE=1 go test -v -count=3 -timeout 60m $(AS_ROOT) -run '^TestAttackers$$' ./relabel

.PHONY: torture-pressure
torture-pressure: install-prerequisites ## memory ends at every call that asks for some, kills at every call on older layouts too; 20,000 mounts; volumes come and go for a day, in forty minutes
	@echo "== hosts that run out of things: forty minutes"
	SELINUX_PROVISION_TORTURE=1 go test -v -count=1 -timeout 120m $(AS_ROOT) -run '^(TestMemoryThatEndsAnywhere|TestCrashMatrix|TestQuarantineCrashMatrix)$$' ./stages
	SELINUX_PROVISION_TORTURE=1 go test -v -count=1 -timeout 180m $(AS_ROOT) -run '^(TestMountChurn|TestManyMounts|TestHundredThousandMounts|TestChurn)$$' ./internal/mounts ./mountwatch

.PHONY: torture-fuzz
torture-fuzz: install-prerequisites ## each fuzz target, FUZZ_EXECUTIONS=10000000 times; what it finds is kept in the package's testdata/fuzz
	@targets=$$(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | wc -l); \
	echo "== $$targets fuzz targets, $(FUZZ_EXECUTIONS) executions each: with 100 to 50,000 in a second, as measured on two busy processors, that is minutes to a day for each, and days for all"
	@grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | while IFS=: read -r file _ function; do \
	  echo "== $${function#func } in $$(dirname $$file)"; \
	  go test -timeout 0 $(AS_ROOT) -run '^$$' -parallel $$((2 * $$(nproc))) -fuzz "^$${function#func }\$$" -fuzztime $(FUZZ_EXECUTIONS)x -fuzzminimizetime 1000x "$$(dirname $$file)" </dev/null || exit; \
	done

.PHONY: test-vm
test-vm: build ## the tests in virtual machines, two machines at a time
	@echo "== tests in virtual machines"
	$(GO_TEST) --format standard-verbose --packages ./vmtests/... -- -vet=off -count=1 -p 1 -timeout 120m $(AS_ROOT)

.PHONY: test-vm-more
test-vm-more: build install-prerequisites ## the same on older kernels, on a whole disk with GRUB and dm-verity, with a thousand levels, with units that lack a capability or starve, and what the units delay a boot: three quarters of an hour, not part of make test
	@echo "== tests on older kernels, on a whole disk, and with a thousand levels"
	go test -v -count=1 -p 1 -timeout 120m -tags more $(AS_ROOT) -run '^(TestOlderKernels|TestReadyImage|TestCacheOfDecisions|TestCapabilitiesOfUnits|TestStarved|TestBootDelay)$$' ./vmtests

.PHONY: test-cluster
test-cluster: build install-prerequisites ## a real kubelet, and a cluster beside it; building two releases of Kubernetes takes 25 minutes once, the tests 20
	@echo "== a kubelet and a cluster: 20 minutes, and 25 more where the cache does not have Kubernetes"
	go test -v -count=1 -p 1 -timeout 300m -tags cluster $(AS_ROOT) -run '^(TestStaticPods|TestKubeadm|TestCluster|TestDriverVolumes|TestFleet)$$' ./vmtests

# The linter is built from source, once for each version: 2.5.0 panics when it is built with this Go.
LINTER := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: lint
lint: go ## gofmt, and golangci-lint with the list in .golangci.yml, go vet among it
	@echo "== gofmt"
	@unformatted=$$(gofmt -l .) && test -z "$$unformatted" || \
	  { echo "make: these files are not formatted: run gofmt -w on them:" >&2; echo "$$unformatted" >&2; exit 1; }
	@echo "== golangci-lint (built at the first run, which takes some minutes)"
	@go run $(LINTER) run ./...

.PHONY: demo
demo: install-prerequisites build ## from the vendor's machine to an enforcing one, in a virtual machine, explained as it goes
	@go run $(VCS) $(AS_ROOT) ./vmtests/cmd/demo

.PHONY: bench
bench: install-prerequisites build ## measure beside cp and semodule, and write docs/performance.md
	$(call install,$(BENCH_POLICY))
	@go run $(VCS) $(AS_ROOT) ./bench bin/selinux-provision docs/performance.md

.PHONY: ignition
ignition: build ## the Ignition files of ignition-examples, with the binary in them, in bin
	@go run $(VCS) ./ignition-examples/cmd/translate --embed bin/selinux-provision bin $(filter-out %/sysext.bu %/sysext-updates.bu,$(wildcard ignition-examples/*.bu))

.PHONY: examples
examples: go ## the Ignition files beside the Butane files in ignition-examples, after a change of those or of the units
	@go run $(VCS) ./ignition-examples/cmd/translate ignition-examples/*.bu

.PHONY: man
man: build ## the manual pages in docs/man, after a change of commands, flags or keys
	@mkdir -p docs/man && bin/selinux-provision man > docs/man/selinux-provision.8 && bin/selinux-provision man config > docs/man/selinux-provision.yaml.5

.PHONY: documents
documents: go ## docs/reference.md, docs/promises.md and the messages in docs/3am.md, after a change of JSON, metrics, messages or proofs
	@go run $(VCS) ./docs/generate

.PHONY: generated
generated: man documents examples ## everything in the repository that is made from something else in it

.PHONY: sysext
sysext: install-prerequisites build ## the system extension image, bin/selinux-provision.raw
	@SOURCE_DATE_EPOCH=$(EPOCH) packaging/sysext bin/selinux-provision $$(go env GOARCH) bin/selinux-provision.raw && echo bin/selinux-provision.raw

ARCHITECTURES := amd64 arm64

.PHONY: dist
dist: go install-prerequisites ## the files of a release, in dist: programs, archives, images, bills of materials, checksums
	@SOURCE_DATE_EPOCH=$(EPOCH) packaging/dist dist $(ARCHITECTURES)

.PHONY: clean
clean: ## remove what was built here; the images of the virtual machines stay in their cache
	rm -rf bin dist

.PHONY: go
go:
	@have=$$(cd / && go version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p'); \
	if test -z "$$have"; then \
	  echo "make: cannot build: there is no go in PATH: put the archive of Go $(GO_WANTED) or later in /usr/local/go" >&2; exit 1; \
	elif ! printf '%s\n' $(GO_WANTED) "$$have" | sort -CV; then \
	  echo "make: cannot build: $$(command -v go) is Go $$have, which is too old: put the archive of Go $(GO_WANTED) or later in /usr/local/go, and /usr/local/go/bin first in PATH" >&2; exit 1; \
	fi

# install installs those of the packages that are not there yet, and says so; apt is not asked when there is nothing to install.
define install
	@if ! command -v dpkg-query >/dev/null; then \
	  echo "make: cannot install packages: this is not Debian: install what these have: $(1)" >&2; exit 1; \
	fi; \
	missing=; for package in $(1); do \
	  test "$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null)" = installed || missing="$$missing $$package"; \
	done; \
	if test -n "$$missing"; then \
	  if test -n "$(SUDO)" && ! command -v sudo >/dev/null; then \
	    echo "make: cannot install packages: you are not root and there is no sudo: as root, run: apt-get install$$missing" >&2; exit 1; \
	  fi; \
	  echo "== installing$$missing"; \
	  $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	fi
endef
