// Package examples holds Butane files for the common ways to run selinux-provision, with their Ignition beside them, and translates
// them as butane --strict does, so that a test and a person without butane get the same.
package examples

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
)

// Files are the Butane files and what they are translated to.
//
//go:embed *.bu *.ign
var Files embed.FS

// Where the examples take the program and the system extension image from.
const (
	ProgramURL = "https://files.example/selinux-provision"
	SysextURL  = "https://files.example/selinux-provision.raw"
)

// Names gives the Butane files, sorted.
func Names() ([]string, error) { return fs.Glob(Files, "*.bu") }

// Translate gives the Ignition configuration of a Butane file. What the file takes with "local:" is read below filesDir. A
// warning is an error, as with butane --strict. Text stays text, so that a difference between two of them can be read.
func Translate(butane []byte, filesDir string) ([]byte, error) {
	options := common.TranslateBytesOptions{Pretty: true}
	options.FilesDir = filesDir
	options.NoResourceAutoCompression = true
	ignition, report, err := config.TranslateBytes(butane, options)
	if err != nil {
		return nil, fmt.Errorf("cannot translate the Butane file: %w\n%s", err, report.String())
	}
	if len(report.Entries) > 0 {
		return nil, fmt.Errorf("cannot translate the Butane file:\n%s", report.String())
	}
	return append(ignition, '\n'), nil
}

// Embed puts contents into an Ignition configuration in place of the addresses that it would fetch them from, for a machine without a
// network or an operator without a server. An address that is not in the configuration changes nothing.
func Embed(ignition []byte, contents map[string][]byte) ([]byte, error) {
	whole := map[string]any{}
	if err := json.Unmarshal(ignition, &whole); err != nil {
		return nil, fmt.Errorf("cannot read the Ignition configuration: %w", err)
	}
	storage, _ := whole["storage"].(map[string]any)
	files, _ := storage["files"].([]any)
	for _, file := range files {
		entry, _ := file.(map[string]any)
		resource, _ := entry["contents"].(map[string]any)
		address, _ := resource["source"].(string)
		content, ok := contents[address]
		if !ok {
			continue
		}
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		entry["contents"] = map[string]any{"source": "data:;base64," + base64.StdEncoding.EncodeToString(packed.Bytes()), "compression": "gzip"}
	}
	return json.Marshal(whole)
}
