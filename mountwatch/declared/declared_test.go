package declared

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/unitfile"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

const (
	image   = "system_u:object_r:container_file_t:s0:c1.c5"
	shared  = "system_u:object_r:container_file_t:s0"
	private = "system_u:object_r:container_file_t:s0:c10,c20"
)

func tree(t *testing.T, files map[string]string) *hostfs.Root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(content, "-> "); link {
			err = os.Symlink(target, name)
		} else {
			err = os.WriteFile(name, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestFind(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/fstab": `# a comment

LABEL=data	/srv/data	ext4	noatime,x-systemd.automount,context="u:r:t:s0:c1,c2"	0 2
/dev/vdb /srv/with\040space xfs
server:/export%1 /srv/nfs nfs4 vers=4.2
UUID=1 none swap sw
/dev/vdc relative ext4 defaults
/dev/vdd /srv/overridden ext4 noatime
/dev/vde /srv/masked ext4 noatime
/dev/vdf /srv/data ext4 the,second,does,not,count
broken
/dev/vdg /srv/trailing/ vfat uid=7
`,
		"etc/systemd/system/srv-overridden.mount":                 "[Unit]\nDescription=x\n[Mount]\nWhat=/dev/disk/by-label/o\nWhere=/srv/overridden\nType=xfs\nOptions=nodev\n",
		"etc/systemd/system/srv-overridden.mount.d/50-a.conf":     "[Mount]\nOptions=nodev,noexec\n",
		"etc/systemd/system/srv-overridden.mount.d/10-b.conf":     "[Mount]\nOptions=lost\n",
		"run/systemd/system/srv-overridden.mount.d/50-a.conf":     "[Mount]\nOptions=hidden\n",
		"run/systemd/system/srv-overridden.mount.d/" + DropInName: "[Mount]\nOptions=ours\n",
		"etc/systemd/system/srv-masked.mount":                     "-> /dev/null",
		"usr/lib/systemd/system/srv-vendor.mount":                 "[Mount]\nWhat=tmpfs\nType=tmpfs\nOptions=mode=1777,\\\n  size=50%%\n",
		"usr/lib/systemd/system/wrong-name.mount":                 "[Mount]\nWhat=tmpfs\nWhere=/srv/else\n",
		"etc/systemd/system/no-what.mount":                        "[Mount]\nWhere=/no/what\n",
		"etc/systemd/system/a.service":                            "[Service]\nExecStart=/bin/true\n",
	})
	all, err := Find(root)
	if err == nil || err.Error() != "cannot use /etc/fstab:11: it has only one field" {
		t.Error(err)
	}
	var got []string
	for _, m := range all {
		got = append(got, fmt.Sprintf("%s %s %s %s [%s] %s", m.Unit, m.Where, m.What, m.Type, m.Options, m.Source))
	}
	want := []string{
		`srv-data.mount /srv/data LABEL=data ext4 [noatime,x-systemd.automount,context="u:r:t:s0:c1,c2"] /etc/fstab:3`,
		`srv-nfs.mount /srv/nfs server:/export%1 nfs4 [vers=4.2] /etc/fstab:5`,
		`srv-overridden.mount /srv/overridden /dev/disk/by-label/o xfs [nodev,noexec] /etc/systemd/system/srv-overridden.mount`,
		`srv-trailing.mount /srv/trailing /dev/vdg vfat [uid=7] /etc/fstab:12`,
		`srv-vendor.mount /srv/vendor tmpfs tmpfs [mode=1777,   size=50%] /usr/lib/systemd/system/srv-vendor.mount`,
		`srv-with\x20space.mount /srv/with space /dev/vdb xfs [] /etc/fstab:4`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if none, err := Find(tree(t, nil)); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}

func rules(t *testing.T, list ...judge.Rule) *judge.Rules {
	t.Helper()
	r, err := judge.NewRules(list)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func host() Host {
	return Host{DefaultContext: image, Refused: func(c string) string {
		if strings.Contains(c, "no_such_t") {
			return "the policy in the kernel does not know " + c
		}
		return ""
	},
		Mounted: func(what, _ string) (string, bool) {
			switch what {
			case "/dev/mounted":
				return "", true
			case "/dev/right":
				return shared, true
			case "/dev/private":
				return private, true
			}
			return "", false
		}}
}

func TestPlan(t *testing.T) {
	rule := func(match judge.Match) judge.Rule {
		return judge.Rule{Name: "data", Source: "config.yaml:3", Match: match, Strategy: judge.Auto}
	}
	at := func(point string) judge.Rule { return rule(judge.Match{Mountpoint: point}) }
	with := func(r judge.Rule, change func(*judge.Rule)) judge.Rule { change(&r); return r }
	disk := Mount{Where: "/srv/data", What: "/dev/disk/by-label/data", Type: "ext4", Options: "noatime,nodev"}
	as := func(change func(*Mount)) Mount { m := disk; change(&m); return m }
	for _, c := range []struct {
		name    string
		rules   []judge.Rule
		mount   Mount
		options string // "" for none
		skipped string
	}{
		{"by mountpoint", []judge.Rule{at("/srv/*")}, disk, `noatime,nodev,context="` + shared + `"`, ""},
		{"no rule", []judge.Rule{at("/srv/else")}, disk, "", ""},
		{"two rules", []judge.Rule{at("/srv/data"), with(at("/srv/data"), func(r *judge.Rule) { r.Name = "b" })}, disk, "", ""},
		{"categories", []judge.Rule{with(at("/srv/data"), func(r *judge.Rule) { r.Level = "s0:c10,c20" })}, disk, `noatime,nodev,context="` + private + `"`, ""},
		{"no options", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = "" }), `context="` + shared + `"`, ""},
		{"by label", []judge.Rule{rule(judge.Match{Label: "data"})}, disk, `noatime,nodev,context="` + shared + `"`, ""},
		{"by label in fstab", []judge.Rule{rule(judge.Match{Label: "my data"})}, as(func(m *Mount) { m.What = `LABEL="my data"` }), `noatime,nodev,context="` + shared + `"`, ""},
		{"by escaped label", []judge.Rule{rule(judge.Match{Label: "my data"})}, as(func(m *Mount) { m.What = `/dev/disk/by-label/my\x20data` }), `noatime,nodev,context="` + shared + `"`, ""},
		{"by UUID", []judge.Rule{rule(judge.Match{UUID: "ABC-1"})}, as(func(m *Mount) { m.What = `UUID=abc-1` }), `noatime,nodev,context="` + shared + `"`, ""},
		{"by UUID of another", []judge.Rule{rule(judge.Match{UUID: "ABC-2"})}, as(func(m *Mount) { m.What = `UUID=abc-1` }), "", ""},
		{"by source", []judge.Rule{rule(judge.Match{Source: "/dev/disk/by-label/*"})}, as(func(m *Mount) { m.What = "LABEL=data" }), `noatime,nodev,context="` + shared + `"`, ""},
		{"NFS", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.What, m.Type, m.Options = "s:/x%", "nfs4", "vers=4.2" }),
			`vers=4.2,nosharecache,context="` + shared + `"`, ""},
		{"NFS by its type", []judge.Rule{rule(judge.Match{FSType: "nfs"})}, as(func(m *Mount) { m.Type = "nfs" }), `noatime,nodev,nosharecache,context="` + shared + `"`, ""},
		{"NFS by its version", []judge.Rule{rule(judge.Match{FSType: "nfs4"})}, as(func(m *Mount) { m.Type, m.Options = "nfs", "nfsvers=4.2" }),
			`nfsvers=4.2,nosharecache,context="` + shared + `"`, ""},
		{"NFS of a version that the server chooses", []judge.Rule{rule(judge.Match{FSType: "nfs4"})}, as(func(m *Mount) { m.Type = "nfs" }), "", ""},
		{"by helper", []judge.Rule{with(rule(judge.Match{FSType: "fuse.glusterfs"}), func(r *judge.Rule) { r.Strategy = judge.Context })}, as(func(m *Mount) { m.Type = "glusterfs" }),
			`noatime,nodev,context="` + shared + `"`, ""},
		{"SMB", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.What, m.Type, m.Options = "//s/x", "cifs", "nosharesock,guest" }),
			`nosharesock,guest,context="` + shared + `"`, ""},
		{"percent", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = "size=50%" }), `size=50%,context="` + shared + `"`, ""},
		{"its own", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = `context="` + private + `",nodev` }), "", "it has context=" + private + " of its own"},
		{"defcontext", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = `noatime,defcontext="u:r:t:s0:c1,c2"` }), "", "it has defcontext=u:r:t:s0:c1,c2 of its own"},
		{"rootcontext", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = "rootcontext=u:r:t:s0" }), "", "it has rootcontext=u:r:t:s0 of its own"},
		{"fscontext", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = "fscontext=u:r:t:s0" }), `fscontext=u:r:t:s0,context="` + shared + `"`, ""},
		{"what only systemd reads", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = "noauto,nofail,x-systemd.automount,ro,auto" }), `x-systemd.automount,ro,context="` + shared + `"`, ""},
		{"percent and backslash", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = `username=CORP\svc,x=%h` }), `username=CORP\svc,x=%h,context="` + shared + `"`, ""},
		{"a long name", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Unit = strings.Repeat("x", 230) + ".mount" }), "", "the name of its unit is too long"},
		{"bind", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = "bind" }), "", "it is a bind mount"},
		{"rbind", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Options = "rbind,ro" }), "", "it is a bind mount"},
		{"relabel", []judge.Rule{with(at("/srv/data"), func(r *judge.Rule) { r.Strategy = judge.Relabel })}, disk, "", "its files are to be labelled"},
		{"paths", []judge.Rule{with(at("/srv/data"), func(r *judge.Rule) { r.Paths = []string{"a"} })}, disk, "", "its files are to be labelled"},
		{"system", []judge.Rule{at("/var")}, as(func(m *Mount) { m.Where = "/var" }), "", "it is a directory of the operating system"},
		{"runtime", []judge.Rule{at("/var/lib/docker/x")}, as(func(m *Mount) { m.Where = "/var/lib/docker/x" }), "", "it is docker's"},
		{"Btrfs", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Type = "btrfs" }), "", "it is Btrfs"},
		{"no type", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Type = "auto" }), "", "its type is not declared, and it might be Btrfs: write the type"},
		{"FUSE", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.Type = "fuse.x" }), "",
			"it is not known whether a fuse.x takes the option: write strategy: context if it does"},
		{"FUSE, context", []judge.Rule{with(at("/srv/data"), func(r *judge.Rule) { r.Strategy = judge.Context })}, as(func(m *Mount) { m.Type = "fuse.x" }),
			`noatime,nodev,context="` + shared + `"`, ""},
		{"unknown to the policy", []judge.Rule{with(at("/srv/data"), func(r *judge.Rule) { r.Context = "u:r:no_such_t:s0" })}, disk, "",
			"the policy in the kernel does not know u:r:no_such_t:s0"},
		{"mounted already", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.What = "/dev/mounted" }), "", "the device is mounted already, with another label"},
		{"mounted already, right in another order", []judge.Rule{with(at("/srv/data"), func(r *judge.Rule) { r.Level = "s0:c20,c10" })},
			as(func(m *Mount) { m.What = "/dev/private" }), `noatime,nodev,context="system_u:object_r:container_file_t:s0:c20,c10"`, ""},
		{"mounted already, right", []judge.Rule{at("/srv/data")}, as(func(m *Mount) { m.What = "/dev/right" }), `noatime,nodev,context="` + shared + `"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, skipped := Plan(rules(t, c.rules...), host(), []Mount{c.mount})
			var options, why string
			if len(plan) == 1 {
				options = Options(&plan[0].Mount, plan[0].Context)
			}
			if len(skipped) == 1 {
				why = skipped[0].Reason
			}
			if options != c.options || why != c.skipped || len(plan) > 1 || len(skipped) > 1 {
				t.Errorf("options %s, skipped %q\nwant    %s, skipped %q", options, why, c.options, c.skipped)
			}
		})
	}
}

// Two mounts of one device have one superblock, and so one context: unless both want the same, neither gets it before they are mounted.
func TestPlanOneDeviceTwice(t *testing.T) {
	a := Mount{Where: "/srv/a", What: "LABEL=data", Type: "ext4"}
	b := Mount{Where: "/srv/b", What: "/dev/disk/by-label/data", Type: "ext4"}
	for _, c := range []struct {
		name string
		b    judge.Rule
		want int
	}{
		{"the same", judge.Rule{Match: judge.Match{Mountpoint: "/srv/b"}}, 2},
		{"the same in another order", judge.Rule{Match: judge.Match{Mountpoint: "/srv/b"}, Context: "system_u:object_r:container_file_t:s0-s0"}, 2},
		{"another level", judge.Rule{Match: judge.Match{Mountpoint: "/srv/b"}, Level: "s0:c1"}, 0},
		{"none", judge.Rule{Match: judge.Match{Mountpoint: "/srv/c"}}, 0},
		{"files", judge.Rule{Match: judge.Match{Mountpoint: "/srv/b"}, Strategy: judge.Relabel}, 0},
	} {
		plan, skipped := Plan(rules(t, judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "/srv/a"}}, c.b), host(), []Mount{a, b})
		if len(plan) != c.want || c.want == 0 && (len(skipped) == 0 || skipped[0].Reason != "the same device is declared twice, and not with one label") {
			t.Errorf("%s: %v, %v", c.name, plan, skipped)
		}
	}
}

// Whatever an operator adds to a mount by drop-ins stays, whether they are for one unit or for many, and the mount is a unit or a line of fstab.
func TestFindDropIns(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/fstab":                         "/dev/vdb /srv/fs/a ext4 noatime\n/dev/vdc /srv/b\u2003c ext4 ro\n",
		"etc/systemd/system/srv-unit.mount": "[Mount]\nWhat=/dev/vdd\nType=ext4\n",
		"etc/systemd/system/srv-unit.mount.d/50-gone.conf":  "-> /dev/null",
		"etc/systemd/system/mount.d/10-all.conf":            "[Mount]\nOptions=nodev\n",
		"etc/systemd/system/srv-.mount.d/20-some.conf":      "[Mount]\nOptions=nodev,nosuid\n",
		"etc/systemd/system/srv-.mount.d/30-same.conf":      "[Mount]\nOptions=hidden\n",
		"etc/systemd/system/srv-fs-.mount.d/30-same.conf":   "[Mount]\nOptions=nodev,noexec\n",
		"etc/systemd/system/srv-fs-a.mount.d/05-early.conf": "[Mount]\nType=xfs\nOptions=early\n",
		"run/systemd/system/srv-unit.mount.d/50-gone.conf":  "[Mount]\nOptions=masked\n",
	})
	all, err := Find(root)
	if err != nil {
		t.Error(err)
	}
	var got []string
	for _, m := range all {
		got = append(got, fmt.Sprintf("%s %s %s from %s", m.Where, m.Type, m.Options, m.Source))
	}
	if want := []string{
		"/srv/b\u2003c ext4 hidden from /etc/fstab:2",
		"/srv/fs/a xfs nodev,noexec from /etc/fstab:1",
		"/srv/unit ext4 hidden from /etc/systemd/system/srv-unit.mount",
	}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A device is known by any of its names to be mounted elsewhere, and what is open in the options of a mount would take in the label's.
func TestPlanDoubts(t *testing.T) {
	h := host()
	h.Mounted = func(what, where string) (string, bool) {
		return "", what == "/dev/disk/by-label/data" && where != "/srv/home"
	}
	all := []Mount{
		{Where: "/srv/elsewhere", What: "LABEL=data", Type: "ext4"},
		{Where: "/srv/quoted", What: "/dev/vdb", Type: "ext4", Options: `x-a="b`},
		{Where: "/srv/escaped", What: "/dev/vdc", Type: "ext4", Options: `x-a=b\`},
	}
	r := rules(t, judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "/srv/*"}})
	plan, skipped := Plan(r, h, all)
	if len(plan) != 0 || len(skipped) != 3 {
		t.Errorf("%v, %v", plan, skipped)
	}
	// Where it belongs, the option counts from the next time on.
	if plan, skipped := Plan(r, h, []Mount{{Where: "/srv/home", What: "LABEL=data", Type: "ext4"}}); len(plan) != 1 {
		t.Error(skipped)
	}
}

// Mounts of one server have a superblock each.
func TestPlanOneServerTwice(t *testing.T) {
	all := []Mount{{Where: "/srv/a", What: "//server/share", Type: "cifs"}, {Where: "/srv/b", What: "//server/share", Type: "cifs"},
		{Where: "/srv/c", What: "server:/export", Type: "nfs4"}, {Where: "/srv/d", What: "server:/export", Type: "nfs4"}}
	plan, skipped := Plan(rules(t, judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "/srv/a"}}, judge.Rule{Name: "c", Match: judge.Match{Mountpoint: "/srv/c"}},
		judge.Rule{Name: "d", Match: judge.Match{Mountpoint: "/srv/d"}, Level: "s0:c1"}), host(), all)
	if len(plan) != 3 || len(skipped) != 0 {
		t.Errorf("%+v, %+v", plan, skipped)
	}
}

// A word for a source is no device: what has no superblock in common with anything gets its label, whatever else is called so.
func TestPlanNoDevice(t *testing.T) {
	for _, m := range []Mount{
		{What: "tmpfs", Type: "tmpfs"}, {What: "overlay", Type: "overlay", Options: "lowerdir=/a:/b"}, {What: "none", Type: "tmpfs"}, {What: "host", Type: "9p"},
		{What: "s3fs", Type: "fuse"}, {What: "sshfs#a@b:/c", Type: "fuse.sshfs"}, {What: "/usr/bin/server", Type: "fuse.server"},
	} {
		wanted, other := m, m
		wanted.Where, other.Where = "/srv/cache", "/srv/other"
		h := host()
		h.Mounted = func(string, string) (string, bool) { return "", true }
		plan, skipped := Plan(rules(t, judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "/srv/cache"}, Strategy: judge.Context}), h, []Mount{wanted, other})
		if len(plan) != 1 || len(skipped) != 0 {
			t.Errorf("%+v: %+v", m, skipped)
		}
	}
	// One tag of virtiofs is one superblock, and so is a disk.
	for _, m := range []Mount{{What: "share", Type: "virtiofs"}, {What: "/dev/vdb", Type: "ext4"}, {What: "/dev/vdb", Type: "fuseblk"}} {
		wanted, other := m, m
		wanted.Where, other.Where = "/srv/cache", "/srv/other"
		if plan, skipped := Plan(rules(t, judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "/srv/cache"}, Strategy: judge.Context}), host(), []Mount{wanted, other}); len(plan) != 0 {
			t.Errorf("%+v: %+v", m, skipped)
		}
	}
}

// What is written is what systemd reads back, and our own drop-in is not taken for the operator's options.
func TestDropIn(t *testing.T) {
	m := Mount{Unit: `srv-a\x20b.mount`, Where: "/srv/a b", What: "/dev/vdb", Type: "ext4", Options: "nodev", Source: "/etc/fstab:3"}
	d := DropIn{Mount: m, Rule: &judge.Rule{Name: "a\nb", Source: "config.yaml:3"}, Context: private}
	if got := d.Path("/run/systemd/system"); got != `/run/systemd/system/srv-a\x20b.mount.d/90-selinux-provision.conf` {
		t.Error(got)
	}
	options, err := unitfile.Parse(string(d.Content()))
	if err != nil || len(options) != 2 || fmt.Sprint(options[0].Name, options[1].Name) != "Wants"+"After" || options[0].Section != "Unit" || options[1].Value != "selinux-provision-mount@%p.service" {
		t.Errorf("%v %v\n%s", options, err, d.Content())
	}
	mounted := &mounts.Mount{Source: "/dev/vdb"}
	if !m.Names(mounted) || m.Names(&mounts.Mount{Source: "/dev/vdc", Device: mounts.Device{Major: 4095, Minor: 77}}) {
		t.Error("a unit is taken for another mount's")
	}
}

// Fstab is read as systemd's own generator reads it: held against what that makes of the same lines.
//
// Proves V17.
func TestFstabLikeSystemd(t *testing.T) {
	const generator = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
	if _, err := os.Stat(generator); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this test needs %s, from the package systemd", generator)
		}
		t.Skipf("this test needs %s", generator)
	}
	dir := t.TempDir()
	for _, name := range []string{"real/below", "a b", "chain"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "real", "up": "chain/../link/below", "absolute": dir + "/real", "nowhere": "missing/place", "round": "round", "chain/file-link": "../file"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.ReplaceAll(`//files/share DIR/share cifs username=CORP\\\\svc-backup,password=a\040b,uid=10\0541000,x=%h\134z 0 0
LABEL="my\040data" DIR/a\040b/x ext4 noatime,x-systemd.automount 0 2
UUID=AbC DIR/with\011tab auto defaults,nofail,context="u:r:t:s0:c1,c2" 0 0
/dev/vdb relative ext4 defaults
tmpfs DIR/t tmpfs size=50%,mode=1777
/dev/vdc DIR/dup ext4 a
/dev/vdd DIR/dup ext4 b
 /dev/vde  	DIR/auto autofs defaults
/dev/vdf DIR/two\\\\slash ext4
/dev/vdg DIR/octal\101\054 ext4
/dev/vdh DIR/link ext4 ro
/dev/vdi DIR/link/new/deeper ext4 ro
/dev/vdj DIR/up ext4
/dev/vdk DIR/absolute/x/ xfs
/dev/vdl DIR/nowhere/y xfs noauto
/dev/vdm DIR/round/z xfs
/dev/vdn DIR/chain/file-link/z xfs
/dev/vdo DIR/chain/../real/./below//w ext4 bind,noauto
/dev/vdp DIR/gone/../v ext4
PARTUUID=1-2 DIR/é ext4 x-systemd.requires=a.service,_netdev
# /dev/vdq DIR/comment ext4
/dev/vdr DIR/crlf ext4 defaults`+"\r"+`
/dev/vds DIR/nul ext4 "quoted",a=\"b
none none swap sw
single`, "DIR", dir), "\n")
	fstab := filepath.Join(dir, "fstab")
	if err := os.WriteFile(fstab, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	cmd := exec.Command(generator, to, to, to)
	cmd.Env = []string{"SYSTEMD_FSTAB=" + fstab, "SYSTEMD_IN_INITRD=0"}
	said, _ := cmd.CombinedOutput() // it complains about lines that it leaves out, and ends with 1
	made, err := hostfs.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	var want []string
	entries, err := os.ReadDir(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".mount" {
			continue
		}
		m := Mount{Unit: e.Name()}
		if err := m.read(made, e.Name()); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%q %q %q %q %q", m.Unit, m.Where, m.What, m.Type, m.Options))
	}
	root, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	all, _ := fromFstab(root, strings.NewReader(strings.Join(lines, "\n")))
	var got []string
	met := map[string]bool{}
	for _, m := range all {
		if m.Type == "auto" {
			m.Type = "" // as systemd writes it
		}
		if !met[m.Unit] {
			got = append(got, fmt.Sprintf("%q %q %q %q %q", m.Unit, m.Where, device(m.What), m.Type, m.Options))
		}
		met[m.Unit] = true
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(got) < 15 {
		t.Errorf("got\n%s\nand systemd has\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), said)
	}
}

// What systemd is to read of options is what it had before, and the label.
func TestOptionsContent(t *testing.T) {
	options, err := unitfile.Parse(string(OptionsContent(`x=50%,username=CORP\\svc,context="` + private + `"`)))
	if err != nil || len(options) != 1 || options[0].Section != "Mount" || options[0].Value != `x=50%%,username=CORP\\svc,context="`+private+`"` {
		t.Errorf("%v %v", options, err)
	}
}

// Units are read as systemd itself reads them: held against what it says that it has loaded.
//
// Proves V17.
func TestUnitsLikeSystemd(t *testing.T) {
	const manager = "/usr/lib/systemd/systemd"
	if _, err := os.Stat(manager); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this test needs %s, from the package systemd", manager)
		}
		t.Skipf("this test needs %s", manager)
	}
	const head = "[Mount]\nWhat=/dev/vdb\n"
	files := map[string]string{
		"srv-slash.mount":         head + "Where=/srv/slash/\nType=ext4\n",
		"srv-twice.mount":         head + "Where=//srv/.//twice\n",
		"srv-comment.mount":       head + "Options=noatime,\\\n# a comment\n  ; another\nnodev\nType=ext4\n",
		"srv-open.mount":          head + "Options=noatime,\\\n\nType=ext4\n",
		"srv-two.mount":           head + "Options=a\\\\\nType=ext4\n",
		"srv-end.mount":           head + "Options=noatime,\\",
		"srv-noequals.mount":      head + "nothing here\nType=ext4\n",
		"srv-long.mount":          head + "Options=" + strings.Repeat("x", 5000) + "\n",
		"srv-mebibyte.mount":      head + "Options=" + strings.Repeat("x", 1<<20-9) + "\n",
		"srv-toolong.mount":       head + "Options=" + strings.Repeat("x", 1<<20-8) + "\n",
		"srv-bytes.mount":         head + "Options=a\xff\n",
		"srv-bytesindropin.mount": head + "Type=ext4\n", "srv-bytesindropin.mount.d/a.conf": "[Mount]\nOptions=before\nOptions=a\xff\nType=xfs\n",
		"srv-section.mount":         head + "[Mount\nType=ext4\n",
		"srv-sectionindropin.mount": head + "Type=ext4\n", "srv-sectionindropin.mount.d/a.conf": "[Mount]\nOptions=before\n[Mount] # x\nType=xfs\n",
		"srv-mark.mount":        "\ufeff" + head + "Type=ext4\n",
		"srv-returns.mount":     "[Mount]\r\nWhat=/dev/vdb\rOptions=cr\r\n\r\nType=ext4\n",
		"srv-relative.mount":    head + "Where=/srv/relative\nWhere=relative\nWhere=/srv/../relative\nType=ext4\nType=\n",
		"srv-empty.mount":       head + "Where=/srv/other\nWhere=\nOptions=a\nOptions=\n",
		"srv-outside.mount":     "What=/dev/vda\n" + head + "[Else]\nWhat=/dev/vdc\n[Mount]\n Options = a b \t\n[ Mount ]\nOptions=blanks\n",
		"srv-nobreak.mount":     head + "\u00a0Options=no blank of systemd's\n",
		"srv-other.mount":       head + "Where=/srv/another\n",
		"srv-nothing.mount":     "[Mount]\nWhere=/srv/nothing\n",
		"srv-percent.mount":     head + "Options=a=50%%\n",
		`srv-a\x2db\x20c.mount`: head,
	}
	var names []string
	for name := range files {
		if filepath.Ext(name) == ".mount" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	files["default.target"] = "[Unit]\nWants=" + strings.Join(names, " ") + "\n"
	root := tree(t, files)
	dir := root.Path("/")
	run := filepath.Join(dir, "run")
	if err := errors.Join(os.Mkdir(run, 0o777), os.Chmod(run, 0o777), os.Chmod(filepath.Dir(dir), 0o755)); err != nil { // systemd does not want to be tried as root
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), manager, "--user", "--test")
	cmd.Env = []string{"SYSTEMD_UNIT_PATH=" + dir, "HOME=" + dir, "XDG_RUNTIME_DIR=" + run}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	said, err := cmd.Output()
	if err != nil {
		t.Fatal(err, complaints.String())
	}
	read := map[string]map[string]string{}
	for text := range strings.SplitSeq(string(said), "-> Unit ") {
		name, lines, _ := strings.Cut(text, ":\n")
		if !slices.Contains(names, name) || read[name] != nil {
			continue
		}
		read[name] = map[string]string{}
		for line := range strings.Lines(lines) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
				read[name][key] = strings.TrimSuffix(value, "n/a")
			}
		}
	}
	for _, name := range names {
		m, _ := FromFiles(root, name, append([]string{"/" + name}, in(files, name+".d/")...))
		has := read[name]
		if has == nil {
			t.Errorf("systemd says nothing of %s:\n%s", name, complaints.String())
			continue
		}
		want := ""
		if has["Unit Load State"] == "loaded" {
			want = fmt.Sprintf("%q %q %q %q", has["Where"], has["What"], has["File System Type"], has["Options"])
		}
		got := ""
		if m.Where != "" {
			got = fmt.Sprintf("%q %q %q %q", m.Where, m.What, m.Type, m.Options)
		}
		if got != want {
			t.Errorf("%s:\ngot  %.200s\nwant %.200s (%s)", name, got, want, has["Unit Load State"])
		}
	}
}

func in(files map[string]string, dir string) (all []string) {
	for name := range files {
		if strings.HasPrefix(name, dir) {
			all = append(all, "/"+name)
		}
	}
	return all
}

func FuzzFstab(f *testing.F) {
	f.Add("LABEL=data\t/srv/data\text4\tnoatime 0 2\n# x\n/dev/x /a\\040b auto\n")
	root, err := hostfs.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, _ := fromFstab(root, strings.NewReader(text))
		for _, m := range all {
			if !strings.HasPrefix(m.Where, "/") || m.Unit == "" {
				t.Errorf("%+v", m)
			}
			// Whatever is in a line, it stays in one line of a unit file.
			all := judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "**"}, Strategy: judge.Context}
			plan, _ := Plan(rules(t, all), host(), []Mount{m})
			for _, d := range plan {
				if lines := strings.Count(string(d.Content()), "\n"); lines != 5 {
					t.Errorf("%d lines: %q", lines, d.Content())
				}
			}
		}
	})
}
