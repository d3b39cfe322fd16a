// Package policystore keeps a writable SELinux policy store equal to this OS image's vendor policy plus what was declared,
// or leaves the host as it was.
//
// The vendor's policy is read-only, below /usr/lib/selinux. The administrator's is in two places: the module store
// /var/lib/selinux, which libsemanage compiles, and /etc/selinux/TYPE, which PID 1 loads at boot. This package brings both from
// the vendor's state to the administrator's (Rebaser, Compiler) and back (Reverter). It looks at the host first and gives the
// difference as a plan.Plan; nothing is changed before that plan is carried out.
//
// It does not decide what is declared, reads no configuration and does not set the SELinux mode.
package policystore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

const (
	// StoreDir is the module store's directory. On a fresh host it is a link to VendorStore.
	StoreDir = "/var/lib/selinux"
	// VendorDir holds the vendor's policy. In it, VendorStore is the module store, and TYPE, config and semanage.conf are what
	// belongs in /etc/selinux: real files up to Flatcar 3732, links into the lower layer of /etc since 3745, and absent in its siblings:
	// ask VendorEtc for them.
	VendorDir = "/usr/lib/selinux"
	// VendorStore is the vendor's module store.
	VendorStore = VendorDir + "/policy"
	// EtcDir is where PID 1 and the SELinux tools look for the policy in force.
	EtcDir = "/etc/selinux"
)

// ErrNoVendor says that this is not a host with a vendor policy to start from.
var ErrNoVendor = errors.New("no vendor policy store in " + VendorStore)

// Vendor is the policy that the OS image ships.
type Vendor struct {
	Type        string            // the policy type, "mcs" on Flatcar
	Fingerprint string            // SHA-256 in hexadecimal, see Fingerprint in docs/adr
	Modules     map[string]string // "PRIORITY/NAME" to the hash of the module as the vendor stores it
	Etc         map[string]string // file below /etc/selinux/TYPE that libsemanage does not generate, to its hash

	etc string // the directory that belongs in /etc/selinux/TYPE
}

// newVendor is a vendor's policy that was not read yet.
func newVendor(root *hostfs.Root, policyType string) *Vendor {
	return &Vendor{Type: policyType, Modules: map[string]string{}, Etc: map[string]string{}, etc: path.Join(VendorEtc(root), policyType)}
}

// FindVendor reads and fingerprints the vendor's policy. ErrNoVendor: there is none.
func FindVendor(root *hostfs.Root) (*Vendor, error) {
	policyType, err := FindType(root)
	if err != nil {
		return nil, err
	}
	v := newVendor(root, policyType)
	return v, v.read(root)
}

// FindType names the policy type that the host is to have: that of /etc/selinux/config, or the vendor's if the file is
// missing, dangling or does not say. ErrNoVendor: the OS image has no policy.
func FindType(root *hostfs.Root) (string, error) {
	vendors, err := VendorType(root)
	if err != nil {
		return "", err
	}
	configured, err := typeIn(root, seconfig.Path)
	if err != nil || configured == "" {
		return vendors, err
	}
	ships, err := ships(root, configured)
	if err == nil && !ships {
		err = fmt.Errorf("cannot use SELINUXTYPE=%s of %s: this OS image ships no such policy: write SELINUXTYPE=%s",
			printable.Text(configured), root.Path(seconfig.Path), vendors)
	}
	if err != nil {
		return "", err
	}
	return configured, nil
}

// VendorType names the policy type that the OS image comes with. ErrNoVendor: it has no policy. What cannot be read is not "none":
// whoever takes a failing disk for another kind of host leaves the host alone and says that all is well.
func VendorType(root *hostfs.Root) (string, error) {
	dir := VendorEtc(root)
	policyType, err := typeIn(root, dir+"/config")
	if err != nil {
		return "", err
	}
	found := false
	if policyType != "" {
		if found, err = ships(root, policyType); err != nil {
			return "", err
		}
	}
	switch {
	case found:
		return policyType, nil
	case policyType != "":
		return "", fmt.Errorf("%w for %s: this OS image ships that policy ready-made in %s, without the modules that it was built from, so nothing can be added to it here",
			ErrNoVendor, printable.Text(policyType), dir)
	}
	return "", fmt.Errorf("%w: this tool needs the layout of Flatcar Container Linux, or of a sibling that ships its modules there", ErrNoVendor)
}

// ships tells whether the OS image has a policy of this type.
func ships(root *hostfs.Root, policyType string) (bool, error) {
	info, err := root.Stat(VendorStore + "/" + policyType + "/active/modules")
	if err != nil {
		if hostfs.NoFile(err) {
			return false, nil
		}
		return false, fmt.Errorf("cannot tell which policies this OS image ships: %w", err)
	}
	return info.IsDir(), nil
}

// typeIn reads the policy type from a configuration; "" if the name leads nowhere or to no file, or the file does not say.
func typeIn(root *hostfs.Root, name string) (string, error) {
	c, err := seconfig.Read(root, name)
	switch {
	case hostfs.NoFile(err):
		return "", nil // it is repaired later
	case err != nil:
		return "", fmt.Errorf("cannot read the policy's type: %w", err)
	case !seconfig.ValidType(c.Type):
		return "", nil
	}
	return c.Type, nil
}

// generated names the files that libsemanage makes from the modules. Their content follows from the rest and from the version
// of the tools, so only their names and sizes are part of the fingerprint; they are also the larger half of the bytes.
func generated(below string) bool {
	base := path.Base(below)
	switch {
	case strings.HasPrefix(base, "policy."), strings.HasSuffix(base, ".bin"), strings.HasSuffix(base, ".linked"):
		return true
	}
	switch base {
	case "file_contexts", "file_contexts.homedirs", "seusers", "netfilter_contexts", "commit_num", "modules_checksum", "users_extra", "homedir_template":
		return true
	}
	return false
}

// read hashes the vendor's modules and its part of /etc/selinux. Times are left out: images are built with fixed ones.
func (v *Vendor) read(root *hostfs.Root) error {
	sum := sha256.New()
	io.WriteString(sum, "selinux-provision vendor fingerprint 1\n")
	buf := make([]byte, 256<<10)
	modules := v.Type + "/active/modules/"
	digests := moduleDigests{v.Modules, map[string]string{}}
	err := root.Walk(VendorStore, func(below string, info hostfs.Entry) error {
		digest, err := hashEntry(root, sum, VendorStore, below, info, buf)
		if key, ok := strings.CutPrefix(below, modules); ok && digest != "" {
			digests.add(key, digest)
		}
		return err
	})
	if err == nil {
		err = root.Walk(v.etc, func(below string, info hostfs.Entry) error {
			digest, err := hashEntry(root, sum, v.etc, below, info, buf)
			if digest != "" {
				v.Etc[below] = digest
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("cannot read the vendor's policy: %w", err)
	}
	v.Fingerprint = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// hashEntry adds one entry to sum, and gives the hash of a regular file that is not generated.
func hashEntry(root *hostfs.Root, sum hash.Hash, top, below string, info hostfs.Entry, buf []byte) (string, error) {
	line := append(buf[:0], below...)
	line = append(line, 0)
	line = strconv.AppendUint(line, uint64(info.Mode), 8)
	line = append(line, ' ')
	line = strconv.AppendUint(line, uint64(info.UID), 10)
	line = append(line, ' ')
	line = strconv.AppendUint(line, uint64(info.GID), 10)
	line = append(line, ' ')
	switch {
	case info.IsLink():
		target, err := root.Readlink(path.Join(top, below))
		if err != nil {
			return "", err
		}
		line = append(line, target...)
	case info.IsRegular() && generated(below):
		line = strconv.AppendInt(line, info.Size, 10)
	case info.IsRegular():
		content, err := info.Read(buf[len(line):])
		if err != nil {
			return "", &fs.PathError{Op: "read", Path: root.Path(path.Join(top, below)), Err: err}
		}
		digest := digestOf(content)
		line = append(line, digest...)
		line = append(line, '\n')
		sum.Write(line)
		return digest, nil
	}
	line = append(line, '\n')
	sum.Write(line)
	return "", nil
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:16])
}

// hashFile hashes a file's content, through buf.
func hashFile(root *hostfs.Root, name string, buf []byte) (string, error) {
	f, err := root.OpenFile(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	for {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(sum.Sum(nil)[:16]), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// moduleDigests gathers, file by file in name order, the hashes of modules, "PRIORITY/NAME" to hash. A .pp module is stored as it came
// (hll) beside the CIL made from it, which libsemanage may make again; a CIL module is the CIL alone, or, where it took the place of a
// .pp, beside that one's hll: lang_ext says which counts.
type moduleDigests struct{ counted, cil map[string]string }

func (m *moduleDigests) add(below, digest string) {
	key, file := path.Split(below)
	key = strings.TrimSuffix(key, "/")
	switch file {
	case "cil":
		m.cil[key], m.counted[key] = digest, digest
	case "hll":
		m.counted[key] = digest
	case "lang_ext":
		if cil, ok := m.cil[key]; ok && digest == digestOf([]byte("cil")) {
			m.counted[key] = cil
		}
	}
}

// modulesIn gives the modules of a store's TYPE directory as "PRIORITY/NAME" with their hashes.
func modulesIn(root *hostfs.Root, typeDir string) (map[string]string, error) {
	return modulesBelow(root, typeDir+"/active")
}

// modulesBelow gives the same of an active store, or of one that was, or was to be.
func modulesBelow(root *hostfs.Root, active string) (map[string]string, error) {
	m := moduleDigests{map[string]string{}, map[string]string{}}
	dir := active + "/modules"
	buf := make([]byte, 64<<10)
	err := root.Walk(dir, func(below string, info hostfs.Entry) error {
		if base := path.Base(below); !info.IsRegular() || base != "cil" && base != "hll" && base != "lang_ext" {
			return nil
		}
		content, err := info.Read(buf)
		if err != nil {
			return &fs.PathError{Op: "read", Path: root.Path(path.Join(dir, below)), Err: err}
		}
		m.add(below, digestOf(content))
		return nil
	})
	return m.counted, err
}

// sameFile tells whether two names lead to files of equal content. A name that leads nowhere equals nothing.
func sameFile(root *hostfs.Root, a, b string) (bool, error) {
	fa, err := root.OpenFile(a)
	if err != nil {
		return false, ignoreMissing(err)
	}
	defer fa.Close()
	fb, err := root.OpenFile(b)
	if err != nil {
		return false, ignoreMissing(err)
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			if errA != nil && !errors.Is(errA, io.EOF) && !errors.Is(errA, io.ErrUnexpectedEOF) {
				return false, errA
			}
			if errB != nil && !errors.Is(errB, io.EOF) && !errors.Is(errB, io.ErrUnexpectedEOF) {
				return false, errB
			}
			return true, nil
		}
	}
}

func ignoreMissing(err error) error {
	if hostfs.Missing(err) {
		return nil
	}
	return err
}
