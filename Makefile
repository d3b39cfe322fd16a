# selinux-provision: "make demo" shows it, "make test" tests it.

.PHONY: build
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/selinux-provision ./cmd/selinux-provision
