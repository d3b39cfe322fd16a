module github.com/selinux-provision/selinux-provision/vmtests/cmd/kubernetes

go 1.26.0
