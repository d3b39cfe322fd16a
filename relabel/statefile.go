package relabel

import (
	"errors"
	"io/fs"
	"path"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// StateFile is a State in a file, whose directory is made when there is something to keep. It may be removed at any time.
type StateFile struct {
	Root *hostfs.Root
	Name string
}

// Load gives what was saved last, nil if nothing was.
func (s StateFile) Load() ([]byte, error) {
	content, err := s.Root.ReadFile(s.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

// Save replaces what was saved in one step.
func (s StateFile) Save(record []byte) error {
	if err := s.Root.MkdirAll(path.Dir(s.Name), 0o755); err != nil {
		return err
	}
	return s.Root.WriteFile(s.Name, record, hostfs.Attributes{Mode: 0o600})
}

// Remove forgets it.
func (s StateFile) Remove() error { return s.Root.Remove(s.Name) }
