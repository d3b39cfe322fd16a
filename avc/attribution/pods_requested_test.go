package attribution

import (
	"fmt"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/bbolttest"
)

// What the spec of a pod asks for is with containerd, for those of its containers that it knows.
func TestPods(t *testing.T) {
	const tasks, state = "/io.containerd.runtime.v2.task/k8s.io/", "/io.containerd.metadata.v1.bolt/meta.db"
	for _, from := range []struct{ run, lib string }{{"run/containerd", "var/lib/containerd"}, {"run/k3s/containerd", "var/lib/rancher/rke2/agent/containerd"}} {
		files := map[string]string{from.lib + state: string(bbolttest.Containerd(t)), "var/log/containers/gone_default_main-" + id("b") + ".log": ""}
		for n, c := range []string{"a1", "a2", "a3", "a4", "77"} {
			files[from.run+tasks+fmt.Sprintf("%064s", c)+"/config.json"] = bundle("container", "main", fmt.Sprintf("pod%d", n), uuid, "container_t", "s0:c1,c2", "/srv")
		}
		files[from.run+tasks+id("5")+"/config.json"] = bundle("sandbox", "", "pod0", uuid, "container_t", "s0:c8,c9", "/none")
		want := []string{"pod0 {   s0:c10,c20} true", "pod1 {   } true", "pod2 {   } true", "pod3 {system_u system_r spc_t } true", "pod4 {   } false"}
		all := host(t, files).Pods()
		if len(all) != len(want) {
			t.Fatalf("%s: %d containers: %+v", from.lib, len(all), all)
		}
		for i, c := range all {
			if got := fmt.Sprintf("%s %v %v", c.Subject.Pod[len("default/"):], c.Requested, c.Known); got != want[i] || c.UID != uuid || c.Level != "s0:c8,c9" {
				t.Errorf("%s: %s of %s, level %s; want %s", from.lib, got, c.UID, c.Level, want[i])
			}
		}
	}
}

// What cannot be read says nothing.
func TestParseRequest(t *testing.T) {
	protobuf := func(value string) string { return "\x0a\x01x\x12" + string(rune(len(value))) + value }
	for content, want := range map[string]bool{
		protobuf(`{"Version":"v1","Metadata":{"Config":{"linux":{}}}}`): true,
		protobuf(`{"Version":"v1","Metadata":{"Config":{}}}`):           true,
		protobuf(`{"Version":"v1","Metadata":{}}`):                      false,
		protobuf(`{"Version":"v2","Metadata":{"Config":{}}}`):           false,
		protobuf(`{`): false, "": false, "\x12\x7f{}": false, "\x0a": false, "\x08\x01": false,
	} {
		if _, ok := parseRequest([]byte(content)); ok != want {
			t.Errorf("%q: %v", content, ok)
		}
	}
}

// FuzzParseRequest reads what a runtime wrote.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("\x0a\x01x\x12\x02{}"))
	f.Add([]byte("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(_ *testing.T, content []byte) { parseRequest(content) })
}
