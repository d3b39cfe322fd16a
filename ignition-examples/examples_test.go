package examples

import (
	"bytes"
	"strings"
	"testing"

	ignition "github.com/coreos/ignition/v2/config"
)

// Each example is translated without a warning, Ignition finds nothing wrong with what comes out, and that is what stands beside it.
//
// Proves V12: each is what its Butane file says, and Ignition takes it.
func TestTranslated(t *testing.T) {
	names, err := Names()
	if err != nil || len(names) < 9 {
		t.Fatalf("%d examples, %v", len(names), err)
	}
	for _, name := range names {
		butane, err := Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		translated, err := Translate(butane, "..")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		stored, err := Files.ReadFile(strings.TrimSuffix(name, ".bu") + ".ign")
		if err != nil || !bytes.Equal(translated, stored) {
			t.Errorf("%s: the .ign file beside it is not what it is translated to (%v): run \"make examples\"", name, err)
		}
		config, report, err := ignition.Parse(translated)
		if err != nil || len(report.Entries) > 0 {
			t.Errorf("%s: Ignition says %v\n%s", name, err, report.String())
		}
		if !bytes.Contains(translated, []byte(`"version": "3.3.0"`)) {
			t.Errorf("%s: not every release of Flatcar reads this version", name)
		}
		// Nobody boots a program that nobody verified.
		for _, f := range config.Storage.Files {
			if source := f.Contents.Source; source != nil && strings.HasPrefix(*source, "http") && (f.Contents.Verification.Hash == nil || !strings.HasPrefix(*f.Contents.Verification.Hash, "sha512-0000")) {
				t.Errorf("%s: %s is fetched without the hash that has to be filled in", name, f.Path)
			}
		}
	}
}

// A program is embedded in place of its address, without the hash of what is not fetched any more.
func TestEmbed(t *testing.T) {
	stored, err := Files.ReadFile("enforcing.ign")
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := Embed(stored, map[string][]byte{ProgramURL: []byte("program"), "https://elsewhere.example": nil})
	if err != nil {
		t.Fatal(err)
	}
	config, report, err := ignition.Parse(embedded)
	if err != nil || len(report.Entries) > 0 {
		t.Fatalf("Ignition says %v\n%s", err, report.String())
	}
	for _, f := range config.Storage.Files {
		if f.Path == "/opt/bin/selinux-provision" && (!strings.HasPrefix(*f.Contents.Source, "data:") || f.Contents.Verification.Hash != nil || *f.Mode != 0o755) {
			t.Errorf("the program is %+v", f)
		}
	}
	if bytes.Contains(embedded, []byte(ProgramURL)) {
		t.Error("the address is still there")
	}
}
