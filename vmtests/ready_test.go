package vmtests

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What is added to a config of somebody else's must leave everything else in it as it was, fields unknown here included.
func TestAddToIgnition(t *testing.T) {
	t.Parallel()
	program := []byte("#!/bin/sh\n")
	for _, test := range []struct{ name, config, want, wrong string }{
		{name: "no config", want: `{"ignition":{"version":"3.3.0"},"storage":{"files":[FILE]},"systemd":{"units":[UNIT]}}`},
		{name: "a config with files and units",
			config: `{"ignition":{"version":"3.4.0","timeouts":{"httpTotal":9}},"kernelArguments":{"shouldExist":["quiet"]},"storage":{"files":[{"path":"/a"}],"links":[{"path":"/l"}]},"systemd":{"units":[{"name":"a.service","dropins":[{"name":"x.conf"}]}]}}`,
			want:   `{"ignition":{"timeouts":{"httpTotal":9},"version":"3.4.0"},"kernelArguments":{"shouldExist":["quiet"]},"storage":{"files":[{"path":"/a"},FILE],"links":[{"path":"/l"}]},"systemd":{"units":[{"dropins":[{"name":"x.conf"}],"name":"a.service"},UNIT]}}`},
		{name: "the same file", config: `{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/opt/x"}]}}`, wrong: "cannot add /opt/x to the Ignition config: it has one already"},
		{name: "the same unit", config: `{"ignition":{"version":"3.3.0"},"systemd":{"units":[{"name":"x.service"}]}}`, wrong: "cannot add x.service"},
		{name: "an old version", config: `{"ignition":{"version":"2.3.0"}}`, wrong: `of version "2.3.0"`},
		{name: "no JSON", config: `variant: flatcar`, wrong: "cannot read the Ignition config"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := addToIgnition([]byte(test.config), map[string][]byte{"/opt/x": program}, map[string]string{"x.service": "[Unit]\n"})
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Errorf("error %v, want %q in it", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			source, err := dataURL(program)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.NewReplacer(
				"FILE", `{"contents":{"compression":"gzip","source":"`+source+`"},"mode":493,"overwrite":true,"path":"/opt/x"}`,
				"UNIT", `{"contents":"[Unit]\n","enabled":true,"name":"x.service"}`).Replace(test.want)
			if string(got) != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// The harness's end in the guest must reach a ready image whole.
func TestReadyImageGetsTheShell(t *testing.T) {
	t.Parallel()
	config, err := withShell(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Storage struct {
			Files []struct {
				Path     string
				Contents struct{ Source string }
			}
		}
		Systemd struct {
			Units []struct{ Name, Contents string }
		}
	}
	if err := json.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Storage.Files) != 1 || len(got.Systemd.Units) != 1 || !strings.Contains(got.Systemd.Units[0].Contents, "ExecStart="+got.Storage.Files[0].Path+"\n") {
		t.Fatalf("the config is %.300s", config)
	}
	packed, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(got.Storage.Files[0].Contents.Source, "data:;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	program, err := io.ReadAll(r)
	if err != nil || !bytes.HasPrefix(program, []byte("\x7fELF")) {
		t.Errorf("the program begins with %q, error %v", program[:min(4, len(program))], err)
	}
}

// A ready image has its own boot loader and its own disk layout; the lookalike gets kernel, boot disk and /usr from the harness.
func TestDevices(t *testing.T) {
	t.Parallel()
	ready := &Image{Root: "/images/flatcar.img"}
	lookalike := &Image{Kernel: "/k", Initrd: "/i", Usr: "/usr.img", Root: "/root.img", BootFS: "/boot.img"}
	small, large := []byte(`{}`), bytes.Repeat([]byte(" "), 300<<10)
	for _, test := range []struct {
		name    string
		image   *Image
		config  []byte
		has     []string
		lacking []string
	}{
		{"ready", ready, nil, []string{"name=opt/org.flatcar-linux/config,file=config.ign", "virtserialport,chardev=shell,name=vmtest.shell", "virtio-blk-pci,drive=root,serial=root"}, []string{"drive=boot", "drive=usr", "opt/com.coreos"}},
		{"ready, large config", ready, large, []string{"name=opt/org.flatcar-linux/config,file=config.ign"}, nil},
		{"lookalike", lookalike, small, []string{"name=opt/com.coreos/config,file=config.ign", "drive=boot", "file=/usr.img,format=raw,readonly=on"}, []string{"org.flatcar-linux"}},
		{"lookalike, no config", lookalike, nil, []string{"drive=boot"}, []string{"fw_cfg"}},
		{"lookalike, large config", lookalike, large, []string{"drive=boot"}, []string{"fw_cfg"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &Machine{options: Options{Ignition: test.config}.withDefaults()}
			args := strings.Join(m.devices(test.image), " ")
			for _, want := range test.has {
				if !strings.Contains(args, want) {
					t.Errorf("%s lacks %s", args, want)
				}
			}
			for _, unwanted := range append(test.lacking, "-kernel") {
				if strings.Contains(args, unwanted) {
					t.Errorf("%s has %s", args, unwanted)
				}
			}
		})
	}
}

// What a ready image cannot do is skipped, not failed; what it can do is not skipped.
func TestNotWithReadyImage(t *testing.T) {
	t.Parallel()
	for _, options := range []Options{{}, {Suite: Trixie, Layout: Today, Ignition: []byte("{}")}} {
		if why := notWithReadyImage(options); why != "" {
			t.Errorf("%+v is refused: %s", options, why)
		}
	}
	for _, options := range []Options{{KernelArgs: []string{"enforcing=0"}}, {Suite: Forky}, {Layout: LTS2023}, {Kernel: Bullseye}} {
		if why := notWithReadyImage(options); why == "" {
			t.Errorf("%+v is not refused", options)
		}
	}
	for name, want := range map[string]string{"/a/flatcar.img": "qcow2", "/a/flatcar.qcow2": "qcow2", "/a/flatcar.bin": "raw", "/a/disk.raw": "raw"} {
		if got := (&Image{Root: name}).rootFormat(); got != want {
			t.Errorf("%s counts as %s, want %s", name, got, want)
		}
	}
}

// An initrd with one more file must be one that the kernel takes: two archives, each entry aligned to four bytes.
func TestInitrdWith(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base, out := dir+"/base", dir+"/out"
	if err := initrdWith("/dev/null", "usr/lib/first", []byte("1"), base); err != nil {
		t.Fatal(err)
	}
	if err := initrdWith(base, "usr/lib/ignition/user.ign", []byte("config"), out); err != nil {
		t.Fatal(err)
	}
	names, contents := readNewc(t, out)
	if want := []string{"usr/lib", "usr/lib/first", "TRAILER!!!", "usr/lib/ignition", "usr/lib/ignition/user.ign", "TRAILER!!!"}; !slices.Equal(names, want) {
		t.Errorf("the archives hold %q, want %q", names, want)
	}
	if len(contents) != 6 || contents[4] != "config" {
		t.Errorf("the contents are %q", contents)
	}
}

func readNewc(t *testing.T, path string) (names, contents []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	number := func(at int) int {
		n, err := strconv.ParseInt(string(text[at:at+8]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	align := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; at < len(text); {
		if string(text[at:at+6]) != "070701" {
			t.Fatalf("no header at byte %d", at)
		}
		size, length := number(at+6+6*8), number(at+6+11*8)
		names = append(names, string(text[at+110:at+110+length-1]))
		data := align(at + 110 + length)
		contents = append(contents, string(text[data:data+size]))
		at = min(align(data+size), len(text))
	}
	return names, contents
}
