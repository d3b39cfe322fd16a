// Package shipped holds what ships beside the program and is delivered by it: the systemd units. It stands in the root of the
// module because a package can embed only what is below it, and the directory of the units is copied to machines as it is. On a
// host nobody reads them from here.
package shipped

import (
	"embed"
	"io/fs"
)

//go:embed units
var files embed.FS

// Units are the units and their drop-ins, by their path below /etc/systemd/system or /usr/lib/systemd/system.
func Units() (fs.FS, error) { return fs.Sub(files, "units") }
