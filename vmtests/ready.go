package vmtests

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// readyImage is the path of a whole disk to boot instead of the lookalike, such as a real Flatcar QEMU image; "" without one. It
// has its own boot loader, kernel and Ignition.
func readyImage() string {
	path := os.Getenv("VMTEST_IMAGE")
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// ready tells an image that boots by itself from one that the harness boots.
func (i *Image) ready() bool { return i.Kernel == "" }

// rootFormat is the format of the image's first disk. Flatcar's images are qcow2, and so is every other by its name.
func (i *Image) rootFormat() string {
	if i.ready() && !strings.HasSuffix(i.Root, ".raw") && !strings.HasSuffix(i.Root, ".bin") {
		return "qcow2"
	}
	return "raw"
}

// configName is where the image's Ignition looks for its config.
func (i *Image) configName() string {
	if i.ready() {
		return "opt/org.flatcar-linux/config"
	}
	return "opt/com.coreos/config"
}

// notWithReadyImage says why a machine cannot be had from a ready image; "" if it can.
func notWithReadyImage(o Options) string {
	switch {
	case len(o.KernelArgs) > 0:
		return "its own boot loader makes the kernel command line"
	case o.Suite != "" && o.Suite != Trixie:
		return "there is only one generation of it"
	case o.Layout != "" && o.Layout != Today:
		return "it has the layout that it has"
	case o.Kernel != OwnKernel:
		return "it has the kernel that it has"
	}
	return ""
}

const (
	guestPath = "/opt/vmtest/guest"
	guestUnit = `[Unit]
Description=Shell for the test harness
DefaultDependencies=no
After=local-fs.target

[Service]
ExecStart=` + guestPath + `
Restart=always
RestartSec=100ms
OOMPolicy=continue
TasksMax=infinity

[Install]
WantedBy=sysinit.target
`
)

// serveConfig serves an Ignition config on the loopback interface, which QEMU's own network makes reachable for a ready image, and returns
// the small config that has Ignition fetch it: a large one cannot come through fw_cfg, as the kernel reads that in quadratic time.
func serveConfig(config []byte) (pointer []byte, server *http.Server, err error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot serve the Ignition config: %w", err)
	}
	server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(config)
	})}
	go func() { _ = server.Serve(listener) }()
	pointer, err = json.Marshal(map[string]any{"ignition": map[string]any{"version": "3.0.0", "config": map[string]any{"replace": map[string]any{
		"source":       fmt.Sprintf("http://10.0.2.2:%d/config.ign", listener.Addr().(*net.TCPAddr).Port), // the host, in QEMU's user network
		"verification": map[string]any{"hash": fmt.Sprintf("sha512-%x", sha512.Sum512(config))},
	}}}})
	return pointer, server, err
}

// withShell adds the harness's end in the guest to a config, or makes one of it alone: a ready image does not contain it.
func withShell(ctx context.Context, config []byte) ([]byte, error) {
	guest, err := guestProgram()
	if err != nil {
		return nil, err
	}
	return addToIgnition(config, map[string][]byte{guestPath: guest}, map[string]string{"vmtest-shell.service": guestUnit})
}

// addToIgnition adds programs and enabled units to an Ignition config of spec 3. A unit without text is one that the machine has. What
// the config has already stays as it is, in fields of this spec or of a later one.
func addToIgnition(config []byte, programs map[string][]byte, units map[string]string) ([]byte, error) {
	whole := map[string]any{"ignition": map[string]any{"version": "3.3.0"}}
	if len(config) > 0 {
		whole = map[string]any{}
		if err := json.Unmarshal(config, &whole); err != nil {
			return nil, fmt.Errorf("cannot read the Ignition config: %w", err)
		}
	}
	head, _ := whole["ignition"].(map[string]any)
	if version, _ := head["version"].(string); !strings.HasPrefix(version, "3.") {
		return nil, fmt.Errorf("cannot add to an Ignition config of version %q: only to one of version 3", version)
	}
	for path, content := range programs {
		source, err := dataURL(content)
		if err != nil {
			return nil, err
		}
		err = addEntry(whole, "storage", "files", "path", map[string]any{
			"path": path, "mode": 0o755, "overwrite": true, "contents": map[string]any{"source": source, "compression": "gzip"},
		})
		if err != nil {
			return nil, err
		}
	}
	for name, text := range units {
		unit := map[string]any{"name": name, "enabled": true}
		if text != "" {
			unit["contents"] = text
		}
		if err := addEntry(whole, "systemd", "units", "name", unit); err != nil {
			return nil, err
		}
	}
	return json.Marshal(whole)
}

// addEntry appends to the list at section.list, unless an entry with the same key is there: Ignition refuses two.
func addEntry(whole map[string]any, section, list, key string, entry map[string]any) error {
	in, ok := whole[section].(map[string]any)
	if !ok {
		in = map[string]any{}
		whole[section] = in
	}
	entries, _ := in[list].([]any)
	for _, e := range entries {
		if have, ok := e.(map[string]any); ok && have[key] == entry[key] {
			return fmt.Errorf("cannot add %s to the Ignition config: it has one already", entry[key])
		}
	}
	in[list] = append(entries, entry)
	return nil
}

func dataURL(content []byte) (string, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(content); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return "data:;base64," + base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}
