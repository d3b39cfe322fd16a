package ignition

import (
	"fmt"
	"strings"
	"testing"
)

// A command starts containers, or only asks, fetches, builds nothing, or stops them.
func TestStarts(t *testing.T) {
	for line, want := range map[string]bool{
		"podman run x": true, "podman --log-level debug run x": true, "podman start -a x": true, "podman pod start x": true, "podman kube play x": true,
		"podman play kube x": true, "podman build .": true, "podman system service": true, "podman container start x": true, "podman compose up -d": true,
		"podman pull x": false, "podman images": false, "podman stop x": false, "podman rm -f x": false, "podman pod create": false, "podman volume create x": false,
		"podman network create run": false, "podman --version": false, "podman run --help": false, "podman system prune": false, "podman image exists x": false,
		"podman generate systemd x": false, "podman login -u start x": false, "podman": false,
		"kubelet": true, "kubelet --config x": true, "kubelet -v 2": true, "kubelet --version": false, "kubelet -v=2 --config=x": true,
		"containerd": true, "containerd --config x": true, "containerd config default": false, "containerd --version": false, "containerd -v": false, "containerd --help": false,
		"dockerd -H fd://": true, "dockerd --version": false, "crio": true, "crio config": false, "crio --config-dir x": true, "crio version": false, "crio wipe -f": false,
		"k3s server": true, "k3s agent": true, "k3s --version": false, "k3s kubectl get pods": false, "k3s crictl ps": false, "k3s check-config": false, "k3s": false,
		"k3s ctr images import x": false, "rke2 server": true, "rke2 --version": false, "nomad agent -config x": true, "nomad version": false, "nomad job run x": false,
		"ctr run x y": true, "ctr -n k8s.io images import x": false, "ctr --namespace moby tasks start x": true, "ctr version": false,
		"nerdctl -n k8s.io run x": true, "nerdctl pull x": false, "nerdctl compose up": true, "crictl version": false, "docker run x": false,
		"systemd-nspawn --boot": true, "systemd-nspawn --version": false, "runc run x": true, "runc list": false, "runc --root /x --version": false,
		"k0s controller": true, "k0s status": false, "buildah bud .": true, "buildah images": false, "cat podman": false, "": false,
	} {
		if got := starts(strings.Fields(line)); got != want {
			t.Errorf("%s: %t", line, got)
		}
	}
}

// The directories of the host that a container gets are found among the options of run, whatever form they have.
func TestRunOf(t *testing.T) {
	for line, want := range map[string]string{
		"docker run -v /a:/b x":                                       "/a",
		"docker run -v /a:/b:z x":                                     "/a+z",
		"docker run -v /a:/b:ro,Z x":                                  "/a+z+ro",
		"docker run -v/a:/b x":                                        "/a",
		"docker run -itv /a:/b x":                                     "/a",
		"docker run --volume=/a:/b --volume /c:/d:ro x":               "/a /c+ro",
		"docker run -v name:/b -v /anonymous x":                       "",
		"docker run --name web --rm -d -p 80:80 -e A=-v x -v /a:/b":   "",
		"docker run x -v /a:/b":                                       "",
		"docker run --privileged -v /a:/b x":                          "free",
		"docker run --privileged=false -v /a:/b x":                    "/a",
		"docker run --security-opt label=disable -v /a:/b x":          "free",
		"docker run --security-opt=label:type:spc_t -v /a:/b x":       "free",
		"docker run --security-opt label=level:s0:c1 -v /a:/b x":      "/a",
		"docker run --security-opt no-new-privileges -v /a:/b x":      "/a",
		"docker run --mount type=bind,source=/a,target=/b x":          "/a",
		"docker run --mount type=bind,src=/a,dst=/b,readonly x":       "/a+ro",
		"docker run --mount source=name,target=/b x":                  "",
		"docker run --mount type=tmpfs,destination=/b x":              "",
		"podman run --mount=type=bind,src=/a,dst=/b,relabel=shared x": "/a+z",
		"podman --log-level debug container run -v /a:/b x":           "/a",
		"podman run -v /a:/b:O x":                                     "/a+ro",
		"nerdctl -n k8s.io create -v ~/a:/b x":                        "~/a",
		"docker pull x":                                               "no",
		"docker compose run -v /a:/b x":                               "no",
		"cat run -v /a:/b":                                            "no",
		"docker":                                                      "no",
		"docker run -v":                                               "",
		"docker run -v ${DATA}:/b x":                                  "",
	} {
		run, ok := runOf(strings.Fields(line))
		var parts []string
		for _, b := range run.binds {
			parts = append(parts, b.source+map[bool]string{true: "+z"}[b.relabels]+map[bool]string{true: "+ro"}[b.readOnly])
		}
		got := strings.Join(parts, " ")
		switch {
		case !ok:
			got = "no"
		case run.free:
			got = "free"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// A command changes SELinux's state by hand, or it only looks.
func TestChangesByHand(t *testing.T) {
	s := &situation{delivered: true, mode: "enforcing"}
	for line, want := range map[string]string{
		"setenforce 0": "mode", "getenforce": "", "sestatus": "",
		"sed -i s/a/b/ /etc/selinux/config": "config", "sed -ri.bak s/a/b/ /etc/selinux/config": "config", "sed --in-place=.bak s/a/b/ /etc/selinux/config": "config",
		"sed -e s/i/b/ /etc/selinux/config": "", "sed -n p /etc/selinux/config": "", "grep x /etc/selinux/config": "",
		"sed -i -e s/SELINUX=enforcing/SELINUX=disabled/g /etc/selinux/config":              "config",
		"cp --remove-destination /usr/share/flatcar/etc/selinux/config /etc/selinux/config": "config", "cp /etc/selinux/config /root": "",
		"cp -t /etc/selinux /root/config": "config", "cp /root/config /etc/selinux": "config", "install -m 0644 /x /etc/selinux/config": "config",
		"mv /etc/selinux/config /root/x": "config", "ln -sf /usr/share/config /etc/selinux/config": "config", "tee -a /etc/selinux/config": "config", "rm /etc/selinux/config": "config",
		"cp -a /usr/lib/selinux/mcs /etc/selinux/mcs": "policy", "rm -rf /etc/selinux/mcs": "policy", "cp -a /usr/lib/selinux/policy /var/lib/selinux": "policy",
		"cp -a /var/lib/selinux /srv/backup": "", "tar c /var/lib/selinux": "", "ls /etc/selinux/mcs": "",
		"semodule -l": "", "semodule -lfull": "", "semodule -DB": "semodule", "semodule -i x.cil": "semodule", "semodule --install=x.cil": "semodule", "semodule -E x": "", "semodule -r x": "semodule",
		"setsebool -P a on": "boolean", "setsebool a 1": "boolean", "getsebool -a": "",
		"semanage boolean -l": "", "semanage fcontext -a -t x_t /x": "semanage",
		"chcon -t x_t /x": "label", "restorecon -R /opt/bin": "note", "restorecon -RF /var/lib/docker": "relabel", "restorecon -R /": "relabel", "restorecon": "",
		"restorecon -n -R /opt/x": "", "restorecon -Rnv /var/lib/docker": "", "restorecon -e /nnn -R /opt/x": "note", "restorecon -T 0n /opt/x": "note", "restorecon -h": "",
		"setfiles -n /etc/x /opt/x": "", "setfiles -r /n /etc/x /opt/x": "note", "fixfiles check /opt/x": "", "fixfiles -v verify": "", "fixfiles restore /opt/x": "note", "fixfiles relabel": "note",
		"setenforce": "", "/usr/sbin/setenforce Permissive": "mode",
	} {
		c := command{argv: strings.Fields(line)}
		got := ""
		for _, change := range changesByHand() {
			if !change.is(c, s) {
				continue
			}
			for word, part := range map[string]string{"mode": "the mode by hand", "config": "cannot change /etc/selinux/config", "policy": "the policy by hand", "semodule": "run semodule", "boolean": "a boolean",
				"semanage": "run semanage", "label": "cannot label files", "relabel": "cannot relabel", "note": "this labels files"} {
				if strings.Contains(change.problem, part) {
					got = word
				}
			}
			if got == "" {
				got = fmt.Sprintf("a change without a name here: %s", change.problem)
			}
			break
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if (&situation{delivered: true, mode: "unmanaged"}).managesMode() {
		t.Error("a mode that is not declared is nobody's but the operator's")
	}
}
