package packaging_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const recipe = "bakery/selinux-provision.sysext"

// The recipe makes of a release the tree that the release's own image has, and refuses an image that is not the one of the checksums.
func TestBakery(t *testing.T) {
	need(t, "mksquashfs", "unsquashfs", "sha512sum")
	create, err := filepath.Abs(recipe + "/create.sh")
	if err != nil {
		t.Fatal(err)
	}
	for arch, release := range map[string]string{"x86-64": "amd64", "arm64": "arm64"} {
		t.Run(arch, func(t *testing.T) {
			dir := t.TempDir()
			served := filepath.Join(dir, "served")
			image := "selinux-provision-1.2.3-linux-" + release + ".sysext.raw"
			for _, sub := range []string{"served", "work", "root", "bad"} {
				if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "program"), []byte("the program\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			run := func(where, script string) (string, error) {
				c := exec.Command("bash", "-c", script)
				c.Dir = filepath.Join(dir, where)
				out, err := c.CombinedOutput()
				return string(out), err
			}
			sysext, err := filepath.Abs("sysext")
			if err != nil {
				t.Fatal(err)
			}
			if out, err := run(".", fmt.Sprintf("%s program %s served/%s && cd served && sha512sum -- selinux-provision-* > SHA512SUMS && unsquashfs -quiet -no-progress -dest ../want %s", sysext, release, image, image)); err != nil {
				t.Fatal(err, out)
			}
			// What the bakery gives to a recipe, and its curl, which fetches from the directory of the release only.
			bakery := fmt.Sprintf(`set -euo pipefail
function arch_transform() { if [[ "$3" == "$1" ]]; then echo "$2"; else echo "$3"; fi; }
function list_github_releases() { echo "v1.2.3 of $1/$2"; }
function curl() { for a; do case "$a" in https://github.com/selinux-provision/selinux-provision/releases/download/v1.2.3/*) cp "%s/${a##*/}" .;; https*) return 22;; esac; done; }
source %s
test "$RELOAD_SERVICES_ON_MERGE" = true
`, served, create)
			if out, err := run("work", bakery+"list_available_versions"); err != nil || out != "v1.2.3 of selinux-provision/selinux-provision\n" {
				t.Errorf("%v, %s", err, out)
			}
			if out, err := run("work", bakery+fmt.Sprintf("populate_sysext_root %q %s v1.2.3", filepath.Join(dir, "root"), arch)); err != nil {
				t.Fatal(err, out)
			}
			if out, err := run(".", "diff -r --no-dereference want root"); err != nil {
				t.Errorf("the trees differ: %s", out)
			}
			if _, err := os.Lstat(filepath.Join(dir, "root/usr/sbin")); err == nil {
				t.Error("there is a /usr/sbin, which takes the place of Flatcar's link")
			}
			upholds, err := os.ReadFile(filepath.Join(dir, "root/usr/lib/systemd/system/multi-user.target.d/10-selinux-provision.conf"))
			if err != nil || !strings.Contains(string(upholds), "Upholds=") || !strings.Contains(string(upholds), "selinux-provision-mountwatch.service") {
				t.Errorf("%v, %s", err, upholds)
			}
			if out, err := run("served", "echo more >> "+image); err != nil {
				t.Fatal(err, out)
			}
			if out, err := run("bad", bakery+fmt.Sprintf("populate_sysext_root %q %s v1.2.3", filepath.Join(dir, "bad"), arch)); err == nil || !strings.Contains(out, "FAILED") {
				t.Errorf("a damaged image is taken: %v, %s", err, out)
			}
		})
	}
}

// The scripts are such that shellcheck finds nothing in them.
func TestShellcheck(t *testing.T) {
	need(t, "shellcheck")
	scripts, err := filepath.Glob(recipe + "/*.sh")
	if err != nil || len(scripts) != 2 {
		t.Fatal(scripts, err)
	}
	if out, err := exec.Command("shellcheck", append([]string{"--severity=style"}, scripts...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// What the example of a machine with updates tells systemd-sysupdate is what the bakery writes for the extension but for the server, and fits the
// image and the link that the machine begins with: the first update moves that link, and to nothing else.
func TestSysupdate(t *testing.T) {
	text, err := os.ReadFile("../ignition-examples/sysext-updates.ign")
	if err != nil {
		t.Fatal(err)
	}
	var machine struct {
		Storage struct {
			Files []struct {
				Path     string
				Contents struct{ Source string }
			}
			Links []struct{ Path, Target string }
		}
	}
	if err := json.Unmarshal(text, &machine); err != nil {
		t.Fatal(err)
	}
	// This is lib/sysupdate.conf.tmpl of the bakery, filled in for selinux-provision.
	const want = `[Transfer]
Verify=false

[Source]
Type=url-file
Path=https://files.example/
MatchPattern=selinux-provision-@v-%a.raw

[Target]
InstancesMax=3
Type=regular-file
Path=/opt/extensions/selinux-provision
CurrentSymlink=/etc/extensions/selinux-provision.raw
`
	files := map[string]string{}
	for _, f := range machine.Storage.Files {
		_, data, _ := strings.Cut(f.Contents.Source, ",")
		if data, err = url.PathUnescape(data); err != nil {
			t.Fatal(err)
		}
		files[f.Path] = data
	}
	if got := files["/etc/sysupdate.selinux-provision.d/selinux-provision.conf"]; got != want {
		t.Errorf("the machine has\n%s", got)
	}
	links := machine.Storage.Links
	if len(links) != 1 || links[0].Path != "/etc/extensions/selinux-provision.raw" || path.Dir(links[0].Target) != "/opt/extensions/selinux-provision" {
		t.Fatalf("the links are %+v", links)
	}
	if _, first := files[links[0].Target]; !first || !regexp.MustCompile(`^selinux-provision-v[0-9.]+-x86-64\.raw$`).MatchString(path.Base(links[0].Target)) {
		t.Errorf("no update knows %s for an older image, or it is not there", links[0].Target)
	}
}
