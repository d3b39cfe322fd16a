// Package packaging_test builds the files of a release and looks at them.
package packaging_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// need skips a test whose program is missing; where CI=true, it fails.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("cannot do without %s: make install-prerequisites installs it", program)
			}
			t.Skipf("cannot do without %s: make install-prerequisites installs it", program)
		}
	}
}

// sources copies what a release is built from to another place, with other times and another mask.
func sources(t *testing.T, to string, when time.Time) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(root, path)
		if e.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, below) {
			return filepath.SkipDir
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, below), 0o755)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		copied := filepath.Join(to, below)
		return errors.Join(os.WriteFile(copied, content, info.Mode().Perm()), os.Chtimes(copied, when, when))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// dist builds the files of a release for one architecture.
func dist(t *testing.T, in, umask string) map[string][]byte {
	t.Helper()
	build := exec.Command("bash", "-c", "umask "+umask+" && exec packaging/dist dist amd64")
	build.Dir = in
	build.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("dist: %v\n%s", err, out)
	}
	files := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(in, "dist/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = content
	}
	return files
}

// A release that is built twice, in two places, at two times, is the same to the byte; and it holds what it says.
//
// Proves V16.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds two releases: not in -short mode")
	}
	need(t, "mksquashfs", "unsquashfs", "tar", "gzip")
	here, there := t.TempDir(), filepath.Join(t.TempDir(), "a longer place")
	first := dist(t, sources(t, here, time.Unix(1e9, 0)), "022")
	second := dist(t, sources(t, there, time.Unix(1.5e9, 0)), "077")

	version, err := os.ReadFile("../cmd/selinux-provision/VERSION")
	if err != nil {
		t.Fatal(err)
	}
	name := "selinux-provision-" + strings.TrimSpace(string(version)) + "-linux-amd64"
	want := []string{"SHA512SUMS", name, name + ".spdx.json", name + ".sysext.raw", name + ".tar.gz"}
	if got := slices.Sorted(maps.Keys(first)); !slices.Equal(got, want) {
		t.Fatalf("the release is %q, want %q", got, want)
	}
	for _, file := range want {
		if !bytes.Equal(first[file], second[file]) {
			t.Errorf("%s differs when it is built again", file)
		}
	}
	var sums strings.Builder
	for _, file := range want[1:] {
		fmt.Fprintf(&sums, "%x  %s\n", sha512.Sum512(first[file]), file)
	}
	if got := string(first["SHA512SUMS"]); got != sums.String() {
		t.Errorf("the checksums are\n%s\nwant\n%s", got, sums.String())
	}
	if bytes.Contains(first[name], []byte(here)) {
		t.Error("the program knows where it was built")
	}
	t.Run("program", func(t *testing.T) { program(t, filepath.Join(here, "dist", name)) })
	t.Run("bill of materials", func(t *testing.T) { bill(t, filepath.Join(here, "dist", name), first[name+".spdx.json"]) })
	t.Run("archive", func(t *testing.T) { archive(t, name, first) })
	t.Run("system extension image", func(t *testing.T) { image(t, filepath.Join(here, "dist", name)) })
}

func program(t *testing.T, file string) {
	out, err := exec.Command(file, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "selinux-provision ") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := exec.Command("ldd", file).CombinedOutput(); err == nil {
		t.Errorf("the program is not static:\n%s", out)
	}
}

// The bill names the program with its hash, Go's own library and every module that is linked in, and nothing else.
func bill(t *testing.T, file string, text []byte) {
	var doc struct {
		SPDXVersion, SPDXID, DocumentNamespace string
		Packages                               []struct {
			Name, SPDXID, VersionInfo string
			Checksums                 []struct{ Algorithm, ChecksumValue string }
			ExternalRefs              []struct{ ReferenceLocator string }
		}
		Relationships []struct{ SpdxElementID, RelationshipType, RelatedSpdxElement string }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{info.Main.Path: "", "std": strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range info.Deps {
		want[m.Path] = m.Version
	}
	valid := regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	ids := map[string]bool{}
	for _, p := range doc.Packages {
		if version, ok := want[p.Name]; !ok || version != "" && version != p.VersionInfo {
			t.Errorf("package %s %s is not in the program", p.Name, p.VersionInfo)
		}
		delete(want, p.Name)
		if !valid.MatchString(p.SPDXID) || ids[p.SPDXID] {
			t.Errorf("identifier %q is wrong or not unique", p.SPDXID)
		}
		ids[p.SPDXID] = true
		if p.Name == info.Main.Path && p.Checksums[1].ChecksumValue != fmt.Sprintf("%x", sha512.Sum512(content)) {
			t.Error("the program's hash is not the program's")
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the bill: %v", want)
	}
	for _, r := range doc.Relationships {
		if !ids[r.RelatedSpdxElement] {
			t.Errorf("relationship to %s, which is nothing", r.RelatedSpdxElement)
		}
	}
	if doc.SPDXVersion != "SPDX-2.3" || doc.SPDXID != "SPDXRef-DOCUMENT" || len(doc.Relationships) != len(doc.Packages) {
		t.Errorf("document %s %s with %d relationships", doc.SPDXVersion, doc.SPDXID, len(doc.Relationships))
	}
}

// The archive has the program, the units, the documents and the licences of everything that is linked in.
func archive(t *testing.T, name string, release map[string][]byte) {
	unpacked, err := gzip.NewReader(bytes.NewReader(release[name+".tar.gz"]))
	if err != nil {
		t.Fatal(err)
	}
	in := tar.NewReader(unpacked)
	found := map[string]*tar.Header{}
	linked := map[string]string{} // from which document
	link := regexp.MustCompile(`\]\(([^)#\s]+)[^)\s]*\)`)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimPrefix(h.Name, name+"/")] = h
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1700000000 || h.Typeflag == tar.TypeReg && h.Mode != 0o644 && h.Mode != 0o755 {
			t.Errorf("%s is of %d:%d, mode %o, time %s", h.Name, h.Uid, h.Gid, h.Mode, h.ModTime)
		}
		if document := strings.TrimPrefix(h.Name, name+"/"); path.Ext(document) == ".md" {
			text, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range link.FindAllStringSubmatch(string(text), -1) {
				if !strings.Contains(to[1], "://") {
					linked[path.Join(path.Dir(document), to[1])] = document
				}
			}
		}
		if h.Name == name+"/selinux-provision" {
			content, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(content, release[name]) {
				t.Errorf("the program in the archive is another one (%v)", err)
			}
		}
	}
	for _, file := range []string{"selinux-provision", "LICENSE", "README.md", "sbom.spdx.json", "units/selinux-provision.target",
		"units/selinux-provision-stage-.service.d/10-common.conf", "docs/operator-guide.md", "ignition-examples/enforcing.bu", "docs/man/selinux-provision.8", "completion/selinux-provision.bash",
		"licenses/github.com/spf13/cobra/LICENSE.txt", "licenses/github.com/coreos/butane/LICENSE", "licenses/go/LICENSE"} {
		if found[file] == nil {
			t.Errorf("not in the archive: %s", file)
		}
	}
	for file := range found {
		if strings.HasSuffix(file, ".go") && linked[file] == "" {
			t.Errorf("in the archive: %s", file)
		}
	}
	for file, document := range linked {
		if found[file] == nil && found[file+"/"] == nil {
			t.Errorf("%s links to %s, which is not in the archive", document, file)
		}
	}
}

// The image has the program where its units look for it, every unit, and what systemd-sysext asks of an image.
func image(t *testing.T, dist string) {
	read := func(file string) string {
		out, err := exec.Command("unsquashfs", "-cat", dist+".sysext.raw", file).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", file, err, out)
		}
		return string(out)
	}
	if got := read("usr/lib/extension-release.d/extension-release.selinux-provision"); got != "ID=_any\nARCHITECTURE=x86-64\nEXTENSION_RELOAD_MANAGER=1\n" {
		t.Errorf("extension-release is %q", got)
	}
	content, err := os.ReadFile(dist)
	if err != nil {
		t.Fatal(err)
	}
	if read("usr/bin/selinux-provision") != string(content) {
		t.Error("the program in the image is another one")
	}
	if out, err := exec.Command("unsquashfs", "-lls", dist+".sysext.raw", "usr/lib/systemd/system-generators/selinux-provision-generator").CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "selinux-provision-generator -> ../../../bin/selinux-provision") {
		t.Errorf("the generator is not in the image (%v):\n%s", err, out)
	}
	upheld := read("usr/lib/systemd/system/multi-user.target.d/10-selinux-provision.conf")
	units := os.DirFS("../units")
	err = fs.WalkDir(units, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		want, err := fs.ReadFile(units, name)
		if err != nil {
			return err
		}
		if got := read("usr/lib/systemd/system/" + name); got != strings.ReplaceAll(string(want), "/opt/bin/", "/usr/bin/") {
			t.Errorf("%s in the image is\n%s", name, got)
		}
		if installs := strings.Contains(string(want), "\n[Install]\n"); installs != strings.Contains(upheld, name) {
			t.Errorf("%s has an [Install] section: %v; upheld is %s", name, installs, upheld)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What has no answer is refused in words.
func TestRefused(t *testing.T) {
	for command, want := range map[string]string{
		"./sysext":                          "usage: sysext BINARY ARCHITECTURE IMAGE",
		"./sysext a mips b":                 "sysext: cannot make an image for mips: known are amd64 and arm64",
		"./dist":                            "usage: dist DIRECTORY ARCHITECTURE...",
		"go run ./sbom":                     "usage: sbom PROGRAM",
		"go run ./sbom /nonexistent":        "sbom: cannot read the program: no such file or directory",
		"go run ./sbom ./packaging_test.go": "sbom: cannot find in ./packaging_test.go what it was built from:",
	} {
		words := strings.Fields(command)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err == nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}
