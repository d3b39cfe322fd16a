package main

import (
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// site is a directory like /etc/selinux-provision.
func site(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "config.d"), 0o755), os.Mkdir(filepath.Join(dir, "modules"), 0o755),
		os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o644),
		os.WriteFile(filepath.Join(dir, "config.d/10-site.yaml"), []byte("version: 1\npolicy: {booleans: {container_use_nfs: true}}\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "modules/site.cil"), []byte("(type site_t)\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// render gives everything that a directory declares, from a directory, a tree and a single file, and check finds nothing in it.
//
// Proves V14.
func TestRender(t *testing.T) {
	from := site(t, "version: 1\nmode: enforcing\n")
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "etc/selinux-provision"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	const address = "https://files.example/selinux-provision"
	everything := []string{"/etc/selinux-provision/config.yaml", "/etc/selinux-provision/config.d/10-site.yaml", "/etc/selinux-provision/modules/site.cil",
		"selinux-provision.target", "selinux-provision-stage-enforce.service", "10-common.conf", address, "sha512-" + sumOfThisProgram(t)}
	for _, to := range []string{"butane", "ignition"} {
		for _, args := range [][]string{{"render", "--from", from}, {"--root", root, "render"}} {
			got := call(t, append(args, "--to", to, "--binary", address)...)
			if got.code != exitDone || got.stderr != "" {
				t.Fatalf("%v: %+v", args, got)
			}
			for _, part := range everything {
				if !strings.Contains(got.stdout, part) {
					t.Errorf("%v --to %s: without %s", args, to, part)
				}
			}
			file := filepath.Join(t.TempDir(), "x")
			if err := os.WriteFile(file, []byte(got.stdout), 0o644); err != nil {
				t.Fatal(err)
			}
			if checked := call(t, "check", file); checked.code != exitDone || checked.stdout != file+": nothing is wrong\n" {
				t.Errorf("%v --to %s: check says %+v", args, to, checked)
			}
		}
	}
	got := call(t, "--json", "--config", filepath.Join(from, "config.yaml"), "--root", root, "render", "--to", "butane", "--binary", address)
	var r struct{ To, Spec, Content string }
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || got.object(t).Command != "render" || r.To != "butane" || r.Spec != "1.0.0" {
		t.Fatalf("JSON: %v %+v", err, got)
	}
	if !strings.Contains(r.Content, "/etc/selinux-provision/config.yaml") || strings.Contains(r.Content, "10-site") {
		t.Errorf("with --config alone:\n%s", r.Content)
	}
	got = call(t, "render", "--from", from, "--to", "butane", "--sysext", address+".raw", "--hash", "sha256-"+strings.Repeat("a", 64))
	if got.code != exitDone || !strings.Contains(got.stdout, "/etc/extensions/selinux-provision.raw") || strings.Contains(got.stdout, "systemd:") {
		t.Errorf("with a system extension image: %+v", got)
	}
}

func sumOfThisProgram(t *testing.T) string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha512.Sum512(content))
}

// What cannot be rendered is refused in words, and nothing is printed that could be taken for a file.
func TestRenderRefused(t *testing.T) {
	good, bad := site(t, "version: 1\n"), site(t, "version: 1\nmode: on\n")
	empty := t.TempDir()
	for _, c := range []struct{ args, want string }{
		{"render", `cannot render to "": write --to butane or --to ignition`},
		{"render --to yaml", `cannot render to "yaml": write --to butane or --to ignition`},
		{"render --to butane --spec 2.0.0", `cannot render version "2.0.0" of Butane's variant flatcar: these are known: 1.0.0, 1.1.0, 1.2.0-experimental`},
		{"render --to butane --sysext https://x/y", "cannot use --sysext without --hash: give sha512- and what sha512sum prints for the image"},
		{"render --to butane --sysext https://x/y --hash z --binary https://x/z", "cannot use --sysext and --binary in one run: the image has the program in it"},
		{"render --to butane --hash z", "cannot use --hash without an address: give --binary or --sysext with a URL"},
		{"--config x render --to butane --from y", "cannot use --from and --config in one run: give one of them"},
		{"render --to butane --from " + good + " --binary no", `cannot use --binary "no": give a URL, or embed`},
		{"render --to butane --from " + bad, bad + "/config.yaml:2: mode: cannot use \"on\" as a mode: write enforcing, permissive or unmanaged"},
		{"render --to butane --from " + empty, "cannot find a configuration in " + empty + ": write one, or give another place with --from or --config"},
		{"render --to butane --from " + good + " --binary https://x.example/y --hash sha512-12",
			`cannot render this: the machine would have what "check" refuses: Butane refuses this: incorrect size for hash sum: write sha256- or sha512- and the whole sum in hexadecimal: see sha512sum(1)`},
	} {
		if got := call(t, strings.Fields(c.args)...); got != (answer{exitUsage, "", "selinux-provision: " + c.want + "\n"}) {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
}
