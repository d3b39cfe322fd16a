package attribution

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

func TestRunning(t *testing.T) {
	dir := t.TempDir()
	one, two, gone := strings.Repeat("1", 64), strings.Repeat("2", 64), strings.Repeat("3", 64)
	for name, content := range map[string]string{
		"proc/1/cgroup":        "0::/init.scope\n",
		"proc/70/cgroup":       "0::/system.slice/docker-" + one + ".scope\n",
		"proc/71/cgroup":       "0::/system.slice/docker-" + one + ".scope/inner\n",
		"proc/80/cgroup":       "12:pids:/x\n1:name=systemd:/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + two + ".scope\n",
		"proc/70/attr/current": "system_u:object_r:unlabeled_t:s0\x00",
		"proc/80/attr/current": "system_u:system_r:web_t:s0\x00",
		"proc/self/cgroup":     "0::/\n",
		"proc/90/other":        "",
		"var/log/containers/web_shop_nginx-" + two + ".log":     "",
		"var/lib/docker/containers/" + one + "/config.v2.json":  `{"Name": "/db", "ProcessLabel": "system_u:system_r:db_t:s0:c1,c2", "Config": {"Image": "postgres"}, "State": {"Running": true, "Pid": 70}}`,
		"var/lib/docker/containers/" + gone + "/config.v2.json": `{"Name": "/gone", "State": {"Running": true, "Pid": 4}}`,
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
	var names [][]string
	var contexts []string
	for _, s := range New(root).Running() {
		names = append(names, Names(s.Subject))
		contexts = append(contexts, string(s.Context))
	}
	if want := "[system_u:system_r:db_t:s0:c1,c2 system_u:system_r:web_t:s0]"; fmt.Sprint(contexts) != want {
		t.Errorf("contexts %v, want %s", contexts, want)
	}
	if want := [][]string{{"db"}, {"nginx", "shop/web", "web", "shop/web/nginx"}}; !reflect.DeepEqual(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if got := Names(avc.Subject{Unit: "a.service"}); got != nil {
		t.Errorf("a unit is %v", got)
	}
}
