package attribution

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

func TestInhabited(t *testing.T) {
	dir := t.TempDir()
	one, two, three := strings.Repeat("1", 64), strings.Repeat("2", 64), strings.Repeat("3", 64)
	docker := func(id string) string { return "0::/system.slice/docker-" + id + ".scope\n" }
	for name, content := range map[string]string{
		"proc/1/cgroup": "0::/init.scope\n", "proc/1/attr/current": "system_u:system_r:kernel_t:s0\x00",
		"proc/70/cgroup": docker(one), "proc/70/attr/current": "system_u:system_r:container_t:s0:c1,c2\x00",
		"proc/71/cgroup": docker(one), "proc/71/attr/current": "system_u:system_r:container_t:s0:c1,c2\n",
		"proc/80/cgroup": docker(two), "proc/80/attr/current": "system_u:system_r:kernel_t:s0\x00",
		"proc/81/cgroup": docker(two), "proc/81/attr/current": "system_u:system_r:container_t:s0\x00",
		"proc/90/cgroup": docker(three), // it ends just now
		"var/lib/docker/containers/" + one + "/config.v2.json": `{"Name": "/db"}`,
		"var/log/containers/web_shop_nginx-" + two + ".log":    "",
		"proc/99/attr/current":                                 "system_u:system_r:kernel_t:s0\x00",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h := New(root)
	got := map[string][]string{}
	for _, c := range h.Inhabited() {
		got[c.Name()] = c.Domains
	}
	if want := map[string][]string{"db": {"container_t"}, "shop/web/nginx": {"container_t", "kernel_t"}, three[:12]: nil}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for pid, start := range map[string]string{"1": "0", "70": "500", "71": "300"} {
		stat := pid + " (a) b) S" + strings.Repeat(" 0", 18) + " " + start + " 0 0\n"
		if err := os.WriteFile(filepath.Join(dir, "proc", pid, "stat"), []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := Domains(root), map[string]time.Duration{"kernel_t": 0, "container_t": 0}; !reflect.DeepEqual(got, want) {
		t.Errorf("a process whose start is not known: %v, want %v", got, want)
	}
	if err := os.Remove(filepath.Join(dir, "proc/81/attr/current")); err != nil {
		t.Fatal(err)
	}
	if got, want := Domains(root), map[string]time.Duration{"kernel_t": 0, "container_t": 3 * time.Second}; !reflect.DeepEqual(got, want) {
		t.Errorf("domains: %v, want %v", got, want)
	}
	if HostDomain(root) != "kernel_t" {
		t.Errorf("the host's domain is %q", HostDomain(root))
	}
}
