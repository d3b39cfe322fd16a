package vmtests

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

// checkEnds waits for the check of the next image.
const checkEnds = "until systemctl is-active -q selinux-provision-check.service || systemctl is-failed -q selinux-provision-check.service; do sleep 1; done; "

// TestCheckOfTheNextImage writes an update to the other /usr partition, as update_engine does. The unit builds what is declared against it,
// with that image's own tools, and status says before the reboot what the update would break.
//
// Proves P3: before the reboot, with the next image's own tools.
func TestCheckOfTheNextImage(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.put(t, modulesDir+"vmtest_good.cil", goodModule)
	m.put(t, modulesDir+"vmtest_old.cil", "(allow kernel_t flatcar_retired_t (file (read)))\n")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	before := m.Must(t, "find /etc/selinux /var/lib/selinux -printf '%p %y %m %s %C@\n' | sort | sha256sum")

	if err := m.AttachUsr(t.Context(), Forky); err != nil {
		t.Fatal(err)
	}
	m.Must(t, `udevadm settle && mkdir -p /dev/disk/by-partlabel &&
ln -s "$(findmnt -no SOURCE /usr)" /dev/disk/by-partlabel/USR-A && ln -s ../by-id/virtio-other-usr /dev/disk/by-partlabel/USR-B &&
systemctl is-active selinux-provision-check.path && touch /run/update_engine_autoupdate_completed`)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if out, err := m.Run(ctx, checkEnds+"systemctl show -P ExecMainStatus selinux-provision-check.service"); err != nil || out.Stdout != "3\n" {
		t.Errorf("the check ended with %q, %v\n%s", out.Stdout, err, m.Must(t, "journalctl -b -o cat -u selinux-provision-check.service"))
	}
	t.Log(m.Must(t, "journalctl -b -o cat -u selinux-provision-check.service; /opt/bin/selinux-provision status"))

	var status struct {
		AsDeclared bool `json:"as_declared"`
		NextImage  struct {
			Tools   string `json:"tools"`
			Error   string `json:"error"`
			LeftOut []struct {
				Name string `json:"name"`
			} `json:"left_out"`
		} `json:"next_image"`
	}
	if err := json.Unmarshal([]byte(m.Must(t, "/opt/bin/selinux-provision status --json")), &status); err != nil {
		t.Fatal(err)
	}
	next := status.NextImage
	if !status.AsDeclared || next.Tools != "image" || next.Error != "" || len(next.LeftOut) != 1 || next.LeftOut[0].Name != "vmtest_old" {
		t.Errorf("status: %+v", status)
	}
	if after := m.Must(t, "find /etc/selinux /var/lib/selinux -printf '%p %y %m %s %C@\n' | sort | sha256sum"); after != before {
		t.Error("the check changed the policy or the store of the host")
	}
	if left := m.Must(t, "ls -d /var/tmp/selinux-provision-check-* /run/selinux-provision-usr-* 2>/dev/null || true"); left != "" {
		t.Errorf("the check left %s behind", left)
	}
}
