package mounts

import (
	"errors"
	"os"
)

// ErrCovered says that the mountpoint of a mount does not lead to it: another one is mounted over it, or it is gone.
var ErrCovered = errors.New("its mountpoint leads to another mount")

// OpenRoot gives an O_PATH handle of the root of the mount, and ErrCovered if its mountpoint does not lead to it any more. No link is
// followed on the way. It may hang on a file system whose server is dead, as any look at a path does.
func (m *Mount) OpenRoot() (*os.File, error) { return nil, errors.New("not built yet") }

// RootLabel reads the label of the root directory of the mount; "" if it has none.
func (m *Mount) RootLabel() (string, error) { return "", errors.New("not built yet") }

// Names is how else a mounted device is known.
type Names struct {
	// Paths are the device's names: /dev/sda1, /dev/disk/by-id/..., /dev/mapper/...
	Paths []string
	// Labels and UUIDs are those of the file system on it. There is usually one of each; there are more when what udev found and what the
	// device holds differ.
	Labels, UUIDs []string
}

// Names gives the other names of what is mounted. The label and the UUID are read from the device itself for the common types, since
// udev may be slower than mount(2), and from udev's links as well. Without a block device they are empty.
func (m *Mount) Names() (Names, error) { return Names{}, errors.New("not built yet") }
