// Package examples holds Butane files for the common ways to run selinux-provision, and translates them to Ignition as butane
// --strict does, so that a test and a person without butane get the same.
package examples

import (
	"embed"
	"fmt"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
)

// Files are the Butane files.
//
//go:embed *.bu
var Files embed.FS

// Translate gives the Ignition configuration of a Butane file. What the file takes with "local:" is read below filesDir. A
// warning is an error, as with butane --strict.
func Translate(butane []byte, filesDir string) ([]byte, error) {
	options := common.TranslateBytesOptions{}
	options.FilesDir = filesDir
	ignition, report, err := config.TranslateBytes(butane, options)
	if err != nil {
		return nil, fmt.Errorf("cannot translate the Butane file: %w\n%s", err, report.String())
	}
	if len(report.Entries) > 0 {
		return nil, fmt.Errorf("cannot translate the Butane file:\n%s", report.String())
	}
	return ignition, nil
}
