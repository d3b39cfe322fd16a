package hostfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// UntrustedError says that somebody else than root decides what stands in a file.
type UntrustedError struct {
	Path   string // of the file, or of the directory or link on the way to it, that another user owns or may change
	Reason string
	fix    string
}

func (e *UntrustedError) Error() string { return e.Path + " " + e.Reason }

// Remedy says what to do about it.
func (e *UntrustedError) Remedy() string { return e.fix }

// Trusted makes sure that nobody but root, or the user who runs this program, can change what is read under a name: not the file, none of the
// directories that lead to it, and none of the links on the way. A directory with the sticky bit, such as /tmp, may be written by all: what
// lies in it and is root's nobody else can replace. The error is an *UntrustedError, or says that the way to the file cannot be followed.
func (r *Root) Trusted(name string) error {
	const mostLinks = 40 // as the kernel's
	at, left := "/", strings.Split(strings.TrimPrefix(clean(name), "/"), "/")
	if err := r.trustedEntry(at); err != nil {
		return err
	}
	for links := 0; len(left) > 0; {
		component := left[0]
		left = left[1:]
		switch component {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, component)
		info, err := r.Lstat(next)
		if err != nil {
			return err
		}
		if err := r.trustedEntry(next); err != nil {
			return err
		}
		if !info.IsLink() {
			at = next
			continue
		}
		target, err := r.Readlink(next)
		if err != nil {
			return err
		}
		if links++; links > mostLinks {
			return r.fail("open", name, unix.ELOOP)
		}
		if path.IsAbs(target) {
			at = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return nil
}

// trustedEntry looks at one directory, link or file, a link not followed.
func (r *Root) trustedEntry(name string) error {
	info, err := r.Lstat(name)
	if err != nil {
		return err
	}
	const sticky = os.ModeSticky
	shown := r.Path(name)
	what := "file"
	if info.IsDir() {
		what = "directory"
	}
	switch {
	case info.UID != 0 && int(info.UID) != os.Geteuid():
		return &UntrustedError{shown, fmt.Sprintf("belongs to user %d, who can put anything there", info.UID), "run: chown -h root: " + shown}
	case info.IsLink(): // its mode says nothing
	case info.Mode.Perm()&0o002 != 0 && (!info.IsDir() || info.Mode&sticky == 0):
		return &UntrustedError{shown, "is a " + what + " that everybody may write", "run: chmod go-w " + shown}
	case info.Mode.Perm()&0o020 != 0 && info.GID != 0 && (!info.IsDir() || info.Mode&sticky == 0):
		return &UntrustedError{shown, fmt.Sprintf("is a %s that group %d may write", what, info.GID), "run: chmod go-w " + shown}
	}
	return nil
}

// ReadTrusted gives the content of a regular file that Trusted allows.
func (r *Root) ReadTrusted(name string) ([]byte, error) {
	if err := r.Trusted(name); err != nil {
		var untrusted *UntrustedError
		if errors.As(err, &untrusted) {
			return nil, err
		}
		// What is wrong with the way to the file is said by reading it.
	}
	return r.ReadFile(name)
}
