// Package provision reads the declared state: what the operator wants of SELinux on this host.
//
// The state is written in /etc/selinux-provision/config.yaml and in the *.yaml files of /etc/selinux-provision/config.d, and
// in the policy modules that they name. Load reads all of it through a Reader and gives one State, merged, complete and
// checked, or every problem of every file at once, each with its file, its line and what to do about it. It is strict: what
// it does not know is an error, so that a misspelt key cannot silently leave a host open.
//
// Do not use it to find out what the host is like, nor to change it. Nothing here looks at the policy store, the kernel or
// the file system outside the Reader, so whether a boolean or a type exists in the policy is found out by those who apply
// the State.
package provision

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/glob"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/roles"
)

// Where the declared state lives.
const (
	// ConfigFile is read first.
	ConfigFile = configDir + "/config.yaml"
	// DropInDir holds further files, which are read in the order of their names.
	DropInDir = configDir + "/config.d"
	// ModulesDir holds the modules that are used when no file names any.
	ModulesDir = configDir + "/modules"

	configDir = "/etc/selinux-provision"
)

// Mode is what the operator wants to happen to the mode of the kernel.
type Mode string

// The modes. Unmanaged leaves the mode of the running kernel and of /etc/selinux/config as it is.
const (
	Enforcing  Mode = "enforcing"
	Permissive Mode = "permissive"
	Unmanaged  Mode = "unmanaged"
)

// State is the declared state, merged from all files, with defaults filled in.
type State struct {
	Mode Mode
	// Modules are sorted by name, and no two have the same name.
	Modules []Module
	// ModulesListed says that Modules are those that were listed; else they are all that there are in ModulesDir.
	ModulesListed bool
	// ReplaceVendorModules are the names of modules that may take the place of the vendor's. They are sorted, none is there twice.
	ReplaceVendorModules []string
	// Booleans is never nil.
	Booleans map[string]bool
	// Roles are the names of roles for containers (package roles). They are sorted, none is there twice.
	Roles []string
	// SharedVolumes asks for the built-in module that gives new files the level of their directory.
	SharedVolumes bool
	// FileContexts are in the order of declaration. No two have the same path and type.
	FileContexts []FileContext
	// Equivalences are in the order of declaration. No two have the same path.
	Equivalences []Equivalence
	// LogDenials asks that the audit rules that hide denials be neutralised.
	LogDenials bool
	// StripDontaudit asks for a policy without its dontaudit rules.
	StripDontaudit bool
	// Guard is nil if enforcing is to be switched on without a trial.
	Guard *Guard
	// RequireReadiness keeps the mode until the readiness verdict is "ready".
	RequireReadiness bool
	// PermissiveDomains are the domains whose denials are only reported, also when the host enforces. They are sorted by type, none is there twice.
	PermissiveDomains []PermissiveDomain
	// AVCCacheThreshold is how many decisions the kernel's cache keeps; 0 leaves that to the kernel.
	AVCCacheThreshold int
	// Readiness is nil if nothing was said about it.
	Readiness *Readiness
	// Volumes are in the order of declaration. No two have the same name, nor the same Match.
	Volumes []Volume
	// Relabel bounds what labelling the files of volumes takes from the host.
	Relabel RelabelLimits
	// Sources are the files that were read, in order. It is empty when there is no config at all.
	Sources []string
}

// Module is one policy module that is to be installed.
type Module struct {
	// Name is the name under which the store knows it: that of the file without its extension, or the one that stands in a .pp.
	Name string
	Path string
	// Lang is "cil" or "pp".
	Lang    string
	Content []byte
	// Source is where the module was asked for: a line of a config file, or the module itself when it was found in ModulesDir.
	Source Position
}

// NamedInside reports whether the module's name is not that of its file, but one that stands in it.
func (m Module) NamedInside() bool {
	name, _ := moduleName(path.Base(m.Path))
	return name != m.Name
}

// FileContext is the label of the files whose whole path matches a regular expression.
type FileContext struct {
	Path string
	// Type is any, file, dir, char, block, socket, pipe or symlink, as CIL writes it.
	Type string
	// Context is user:role:type:level, or <<none>> for files that are to be left alone.
	Context string
	Source  Position
}

// PermissiveDomain is a domain that stays permissive on a host that enforces.
type PermissiveDomain struct {
	// Type is the domain's name, or an alias of it.
	Type   string
	Source Position
}

// Equivalence says that what lies below one directory is labelled as if it were below another one, for all file contexts that there are:
// what "semanage fcontext --add --equal" does.
type Equivalence struct {
	// Path is the directory, Like the one whose labels it gets; both are absolute, without "..".
	Path, Like string
	Source     Position
}

// Volume says which label the volumes get that it matches.
type Volume struct {
	// Name is the operator's.
	Name  string
	Match VolumeMatch
	// Context is user:role:type:level. If it is "", the image's default is meant, with Level in place of its level if that is not "".
	Context, Level string
	Strategy       Strategy
	// Paths are the sub-trees to label, relative to the root of the volume and without "..". If there are any, Strategy is not
	// ContextOption.
	Paths []string
	// Required says that a unit waits for the label: the files come before those of other volumes, and at full speed.
	Required bool
	// Private leaves the level of the files to the runtime of the container that uses the volume. Strategy is not ContextOption.
	Private bool
	Source  Position
}

// VolumeMatch says which mounts a volume is. A key that is "" is not asked for, and at least one is. Each is a pattern (package glob);
// all that are given must fit.
type VolumeMatch struct {
	Mountpoint, Source, FSType, Label, UUID string
	// CSIDriver is the name of a CSI driver, and no pattern: the volumes that it mounts for the kubelet. Strategy is not ContextOption.
	CSIDriver string
}

// KubeletsVolumes reports whether it asks for the CSI volumes of the kubelet, which are only ever labelled file by file.
func (m *VolumeMatch) KubeletsVolumes() bool {
	p, err := glob.Compile(m.Mountpoint)
	return m.CSIDriver != "" || err == nil && kubelet.MeansCSI(p.Prefix())
}

// Strategy is a way to a label.
type Strategy string

// The strategies. Auto uses the mount option context= where it can, and labels the files otherwise.
const (
	Auto          Strategy = "auto"
	ContextOption Strategy = "context"
	RelabelFiles  Strategy = "relabel"
)

// RelabelLimits bound the labelling of files; 0 is no limit of ours.
type RelabelLimits struct {
	// Workers is how many system calls may wait for the disk at once.
	Workers int
	// EntriesPerSecond is how many files and directories are looked at in a second.
	EntriesPerSecond int
	// CPUPercent is the processor time, in percent of one processor.
	CPUPercent int
}

// Position is a place in a file. Line 0 is the file as a whole.
type Position struct {
	File string
	Line int
}

// String gives "file:line".
func (p Position) String() string {
	if p.Line <= 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// Error is one thing that is wrong with the declared state.
type Error struct {
	Position
	// Key is the path of the key, such as policy.booleans. It is empty when the problem is with the whole file.
	Key string
	// Problem says what cannot be done, Remedy what the operator can do about it.
	Problem, Remedy string

	cause error
}

// Error gives the whole message on one line.
func (e *Error) Error() string {
	parts := []string{e.Position.String()}
	for _, part := range []string{e.Key, e.Problem, e.Remedy} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Unwrap gives the reason for which a file could not be read, if that is the problem.
func (e *Error) Unwrap() error { return e.cause }

// Errors are all problems of all files, in the order in which the files are read.
type Errors []*Error

// Error gives one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each problem to errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// Reader gives the files of a host or of a tree.
type Reader interface {
	// ReadFile gives a regular file, links followed inside the tree. A directory is an error that wraps EISDIR. An error with a method
	// Remedy says that the file is not to be obeyed, and what to do about it.
	ReadFile(name string) ([]byte, error)
	// ReadDir gives the entries of a directory sorted by name, and an error that wraps fs.ErrNotExist if there is none.
	ReadDir(name string) ([]fs.DirEntry, error)
}

// Digest identifies all that the policy stage applies: what AccessDigest does, and which domains are permissive. Two states with equal
// digests ask for the same policy, wherever their parts were written.
func (s *State) Digest() [sha256.Size]byte {
	access := s.AccessDigest()
	if len(s.PermissiveDomains) == 0 {
		return access
	}
	d := newDigest("selinux-provision permissive domains 1")
	d.part(access[:])
	d.text(s.permissiveTypes()...)
	return d.sum()
}

func (s *State) permissiveTypes() (names []string) {
	for _, p := range s.PermissiveDomains {
		names = append(names, p.Type)
	}
	return names
}

// AccessDigest identifies what decides whether an access is allowed and whether a denial is logged: modules, roles, booleans, shared volumes,
// file contexts and dontaudit. Whether what is denied is also stopped is not in it.
func (s *State) AccessDigest() [sha256.Size]byte {
	d := newDigest("selinux-provision policy 1")
	d.text("modules", strconv.Itoa(len(s.Modules)))
	for _, m := range slices.SortedFunc(slices.Values(s.Modules), func(a, b Module) int { return strings.Compare(a.Name, b.Name) }) {
		d.text(m.Name, m.Lang)
		d.part(m.Content)
	}
	d.text("booleans", strconv.Itoa(len(s.Booleans)))
	for _, name := range slices.Sorted(maps.Keys(s.Booleans)) {
		d.text(name, strconv.FormatBool(s.Booleans[name]))
	}
	d.text("shared_volumes", strconv.FormatBool(s.SharedVolumes))
	d.text("file_contexts", strconv.Itoa(len(s.FileContexts)))
	for _, c := range s.FileContexts {
		d.text(c.Path, c.Type, c.Context)
	}
	if len(s.ReplaceVendorModules) > 0 {
		d.text("replace_vendor_modules", strconv.Itoa(len(s.ReplaceVendorModules)))
		d.text(s.ReplaceVendorModules...)
	}
	if len(s.Roles) > 0 {
		d.text("roles", strconv.Itoa(len(s.Roles)))
		for _, name := range s.Roles {
			d.text(name, roles.Digest(name)) // a later release may have another one of the name
		}
	}
	d.text("dontaudit", fmt.Sprintf("strip=%v", s.StripDontaudit))
	return d.sum()
}

// VolumesDigest identifies what is declared of volumes: the same digest asks for the same labels in the same way, wherever it was
// written. RelabelLimits are no part of it.
func (s *State) VolumesDigest() [sha256.Size]byte {
	d := newDigest("selinux-provision volumes 1")
	d.text(strconv.Itoa(len(s.Volumes)))
	for _, v := range s.Volumes {
		d.text(v.Name, v.Match.Mountpoint, v.Match.Source, v.Match.FSType, v.Match.Label, v.Match.UUID, v.Context, v.Level, string(v.Strategy),
			strconv.FormatBool(v.Required), strconv.FormatBool(v.Private), strconv.Itoa(len(v.Paths)))
		d.text(v.Paths...)
		if v.Match.CSIDriver != "" {
			d.text("csi_driver", v.Match.CSIDriver)
		}
	}
	return d.sum()
}

// digest makes one number of a list of parts.
type digest struct{ hash hash.Hash }

func newDigest(of string) digest {
	d := digest{sha256.New()}
	d.text(of)
	return d
}

// part takes each part with its length, so that no two lists of parts are one string of bytes.
func (d digest) part(values ...[]byte) {
	for _, v := range values {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(v)))
		d.hash.Write(length[:])
		d.hash.Write(v)
	}
}

func (d digest) text(values ...string) {
	for _, v := range values {
		d.part([]byte(v))
	}
}

func (d digest) sum() [sha256.Size]byte { return [sha256.Size]byte(d.hash.Sum(nil)) }
