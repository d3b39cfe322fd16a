package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// Write is the step that puts content at name, and back what was there: the file with its attributes, the link, or nothing.
func Write(root *hostfs.Root, name string, content []byte, attr hostfs.Attributes, reason string) Step {
	return replacing(root, "write", name, reason, func() (string, error) {
		return fmt.Sprintf("%d bytes", len(content)), root.WriteFile(name, content, attr)
	})
}

// Link is the step that puts a symbolic link to target at name, in place of a file or a link, and back what was there.
func Link(root *hostfs.Root, target, name, reason string) Step {
	return replacing(root, "link", name, reason, func() (string, error) {
		return "to " + target, root.Symlink(target, name)
	})
}

// Remove is the step that removes the file or link name, and puts it back.
func Remove(root *hostfs.Root, name, reason string) Step {
	return replacing(root, "remove", name, reason, func() (string, error) { return "removed", root.Remove(name) })
}

func replacing(root *hostfs.Root, action, name, reason string, change func() (string, error)) Step {
	var old *saved
	return Step{
		Action: action, Target: name, Reason: reason,
		Do: func(context.Context) (string, error) {
			was, err := save(root, name)
			if err != nil {
				return "", fmt.Errorf("cannot %s %s: %w", action, root.Path(name), without(root.Path(name), err))
			}
			result, err := change()
			if err != nil {
				// The name may have changed already, and only its durability be in doubt.
				if now, serr := save(root, name); serr != nil || !reflect.DeepEqual(now, was) {
					err = errors.Join(err, was.restore(root, name))
				}
				return "", fmt.Errorf("cannot %s %s: %w", action, root.Path(name), without(root.Path(name), err))
			}
			old = was
			return result, nil
		},
		Undo: func(context.Context) error {
			if err := old.restore(root, name); err != nil {
				return fmt.Errorf("cannot put back what was at %s: %w", root.Path(name), without(root.Path(name), err))
			}
			return nil
		},
	}
}

// without takes a path out of an error whose message is about to name it.
func without(name string, err error) error {
	if e, ok := err.(*fs.PathError); ok && e.Path == name { //nolint:errorlint // what wraps it may say more
		return e.Err
	}
	return err
}

// saved is what stood at a name before a step replaced it.
type saved struct {
	exists  bool
	target  string // of a link
	content []byte // of a regular file
	attr    hostfs.Attributes
}

func save(root *hostfs.Root, name string) (*saved, error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &saved{}, nil
	case err != nil:
		return nil, err
	case info.IsLink():
		target, err := root.Readlink(name)
		return &saved{exists: true, target: target}, err
	case !info.IsRegular():
		return nil, errors.New("it is neither a file nor a link: move it away")
	}
	content, err := root.ReadFile(name)
	if err != nil {
		return nil, err
	}
	label, err := root.Label(name)
	attr := hostfs.Attributes{Mode: info.Mode, UID: info.UID, GID: info.GID, Label: label}
	return &saved{exists: true, content: content, attr: attr}, err
}

func (s *saved) restore(root *hostfs.Root, name string) error {
	switch {
	case s == nil:
		return nil
	case !s.exists:
		return root.Remove(name)
	case s.target != "":
		return root.Symlink(s.target, name)
	}
	return root.WriteFile(name, s.content, s.attr)
}
