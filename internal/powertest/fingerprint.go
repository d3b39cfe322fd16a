package powertest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Fingerprint tells states of a file system apart: it is another one where anything differs that a program could go by, which is the name, number, kind,
// permissions, owner, times, links, attributes or content of an entry. What has one of the names to pass over at the top of dir does not count,
// nor does dir itself.
func Fingerprint(t testing.TB, dir string, pass ...string) (sum [sha256.Size]byte) {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		if filepath.Dir(name) == dir && slices.Contains(pass, d.Name()) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFDIR {
			st.Size = 0 // how many blocks its entries ever took
		}
		fmt.Fprintf(h, "%q %d %o %d %d %d %d %d %v %v\n", name[len(dir):], st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink, st.Rdev, st.Size, st.Mtim, st.Ctim)
		attributes, err := attributes(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q\n", attributes)
		switch kind {
		case unix.S_IFLNK:
			target, err := os.Readlink(name)
			fmt.Fprintf(h, "%q\n", target)
			return err
		case unix.S_IFREG:
			content, err := os.ReadFile(name)
			h.Write(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatalf("cannot look at what is left: %v", err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// attributes gives the extended attributes of an entry, each followed by its value.
func attributes(name string) (all []string, err error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, names)
	if err != nil {
		return nil, err
	}
	value := make([]byte, 64<<10)
	for attribute := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if attribute == "" { // there is none
			break
		}
		n, err := unix.Lgetxattr(name, attribute, value)
		if err != nil {
			return nil, err
		}
		all = append(all, attribute, string(value[:n]))
	}
	return all, nil
}
