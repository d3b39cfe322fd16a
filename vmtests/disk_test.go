//go:build more

package vmtests

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestReadyImage is the spine on a whole disk that boots by itself, which is the way of VMTEST_IMAGE: GRUB, the first-boot flag and the config under
// Flatcar's names, /usr on dm-verity, the next /usr in the other partition. Without an image of somebody's it makes one of the
// lookalike, and has itself run with that.
//
// Proves V1: on a disk with Flatcar's partitions, booted by GRUB.
// Proves V14: the next image is found in USR-B.
func TestReadyImage(t *testing.T) {
	t.Parallel()
	if readyImage() == "" {
		withDisk(t, "TestReadyImage", "TestFreshMachine")
		return
	}
	m := Start(t, Options{Ignition: example(t, "enforcing.bu")})
	t.Log(m.journal(t))
	m.goodState(t)
	if got := m.Must(t, `cat "/sys/block/$(basename "$(readlink -f "$(findmnt -no SOURCE /usr)")")/dm/uuid"`); !strings.HasPrefix(got, "CRYPT-VERITY-") {
		t.Errorf("/usr comes from the device %q, want one on dm-verity", got)
	}
	m.Must(t, "mountpoint -q /oem || { mkdir -p /oem && mount LABEL=OEM /oem; }") // the system's own Btrfs
	m.status(t, 0)

	if m.Must(t, "blkid -o value -s TYPE /dev/disk/by-partlabel/USR-B || true") == "btrfs" {
		m.Must(t, "touch /run/update_engine_autoupdate_completed; "+checkEnds)
		var status struct {
			NextImage struct {
				Tools string `json:"tools"`
				Error string `json:"error"`
			} `json:"next_image"`
		}
		if err := json.Unmarshal([]byte(m.Must(t, "/opt/bin/selinux-provision status --json")), &status); err != nil {
			t.Fatal(err)
		}
		if status.NextImage.Tools != "image" || status.NextImage.Error != "" {
			t.Errorf("the check of the next image: %+v\n%s", status.NextImage, m.Must(t, "journalctl -b -o cat -u selinux-provision-check.service"))
		}
	} else {
		t.Log("USR-B is empty: no check of the next image")
	}

	m.reboot(t)
	m.unchanged(t)
	m.goodState(t)
}

// withDisk runs tests of this package with a disk of the lookalike's as VMTEST_IMAGE.
func withDisk(t *testing.T, tests ...string) {
	t.Helper()
	Require(t)
	disk, err := BuildDisk(t.Context(), func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	images, err := Build(t.Context(), Trixie, nil)
	if err != nil {
		t.Fatal(err)
	}
	accel, err := accelArgs(t.Context(), images[Today].Kernel)
	if err != nil {
		t.Fatal(err)
	}
	how, _, _ := strings.Cut(accel[1], ",")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.parallel=1", "-test.run=^("+strings.Join(tests, "|")+")$")
	child.Env = append(os.Environ(), "VMTEST=require", "VMTEST_IMAGE="+disk, "VMTEST_ACCEL="+how)
	out, err := child.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	for _, test := range tests {
		if !strings.Contains(string(out), "--- PASS: "+test+" ") {
			t.Errorf("%s did not pass with the disk", test)
		}
	}
}
