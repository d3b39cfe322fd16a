// Package avc reads what SELinux denied: AVC, USER_AVC and SELINUX_ERR messages from the journal, the audit daemon's log, the
// kernel's log or any mixture of them, each denial once whatever way it came, with what other records of its event add.
//
// A Decoder turns text into Records. A Reader joins the records of one event, drops what came by a second transport, counts
// what was lost, and gives Denials. Groups puts equal denials together. Nothing here touches the host: who a denial belongs to
// is the business of avc/attribution, what the policy says about it that of internal/policydb, what to do about it that of avc/judge.
//
// The formats are those of the kernel (security/selinux/avc.c, kernel/audit.c, kernel/auditsc.c), of the audit daemon's raw and
// enriched logs, and of systemd-journald. Do not use it for other audit events: it keeps of them only what a denial needs.
package avc

import (
	"fmt"
	"strconv"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// Type is the kernel's number of a kind of audit message (include/uapi/linux/audit.h).
type Type uint16

// The types that this package understands; of others only the serial number matters.
const (
	TypeDaemon         Type = 1200 // to 1299: the audit daemon's own, which it numbers by itself
	TypeUserAVC        Type = 1107 // a userspace object manager, such as systemd or dbus, denied something
	TypeSyscall        Type = 1300
	TypePath           Type = 1302
	TypeCwd            Type = 1307
	TypeEndOfEvent     Type = 1320
	TypeProctitle      Type = 1327
	TypeAVC            Type = 1400
	TypeSELinuxErr     Type = 1401
	TypeAVCPath        Type = 1402 // kernels before 2.6.27 gave the path in a record of its own
	TypeMACPolicyLoad  Type = 1403
	TypeMACStatus      Type = 1404 // the mode was switched
	TypeUserSELinuxErr Type = 2310
)

// typeNames is the audit daemon's name for each number.
func typeNames() map[string]Type {
	return map[string]Type{
		"USER_AVC": TypeUserAVC, "SYSCALL": TypeSyscall, "PATH": TypePath, "CWD": TypeCwd, "EOE": TypeEndOfEvent,
		"PROCTITLE": TypeProctitle, "AVC": TypeAVC, "SELINUX_ERR": TypeSELinuxErr, "AVC_PATH": TypeAVCPath,
		"MAC_POLICY_LOAD": TypeMACPolicyLoad, "MAC_STATUS": TypeMACStatus, "USER_SELINUX_ERR": TypeUserSELinuxErr,
	}
}

// String gives the audit daemon's name, or the number.
func (t Type) String() string {
	for name, n := range typeNames() {
		if n == t {
			return name
		}
	}
	return strconv.Itoa(int(t))
}

// Origin is the way by which a record came.
type Origin uint8

// The ways. One record may come by several of them.
const (
	OriginUnknown Origin = iota
	OriginLog            // the audit daemon's log
	OriginAudit          // journald listening to the kernel's audit socket
	OriginKernel         // the kernel's log, which cuts a record off at some 1,000 bytes
)

// MarshalText gives the name for JSON.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *Type) UnmarshalText(text []byte) error {
	if n, known := typeNames()[string(text)]; known {
		*t = n
		return nil
	}
	n, err := strconv.ParseUint(string(text), 10, 16)
	*t = Type(n)
	return err
}

// Record is one audit message, not yet taken apart.
type Record struct {
	Type   Type
	Time   time.Time // to the millisecond, as the kernel stamped it; zero if the text does not say
	Serial uint64    // of the event, counts up from boot; 0 if the text does not say
	Text   string    // what stands behind "audit(...): "
	Node   string    // host, where the audit daemon writes it
	Boot   string    // boot ID, if the journal gave the record
	Cgroup string    // of the process, if the journal gave it
	Unit   string    // the same
	Origin Origin
	// Words says that ausearch has put the values into words: a name in it stands for itself, although it can look like hexadecimal.
	Words bool
}

// Kind is what a denial says.
type Kind uint8

// The kinds.
const (
	Denied  Kind = iota // an access was denied, or would have been
	Granted             // an access that a rule asks to report was allowed
	Invalid             // a context that the policy does not allow was computed or asked for
)

// String is the word for the kind in JSON.
func (k Kind) String() string { return [...]string{"denied", "granted", "invalid"}[k] }

// MarshalText gives the word for JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Kind) UnmarshalText(text []byte) error {
	for *k = Denied; *k <= Invalid; *k++ {
		if k.String() == string(text) {
			return nil
		}
	}
	return fmt.Errorf("there is no kind of denial %s", printable.Quote(string(text)))
}

// Enforced says whether a denial stopped the access.
type Enforced uint8

// The answers. Kernels before 3.17 do not say; then the outcome of the system call does, if it was recorded.
const (
	EnforcedUnknown Enforced = iota
	EnforcedNo               // permissive: only reported
	EnforcedYes              // the access was stopped
)

// String is the word in JSON.
func (e Enforced) String() string { return [...]string{"unknown", "no", "yes"}[e] }

// MarshalText gives the word for JSON.
func (e Enforced) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// Field is one KEY=VALUE of a record, quotes and hexadecimal coding taken off.
type Field struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Denial is one decision, with what the other records of its event add. Its strings stay valid; the Denial itself is used again
// by the Reader that gave it.
type Denial struct {
	Type   Type
	Kind   Kind
	Time   time.Time
	Serial uint64
	Node   string
	Boot   string
	Cgroup string
	Unit   string

	Permissions []string // as the kernel names them
	Source      Context  // who asked
	Target      Context  // for what
	Class       string   // of the target: file, dir, ...
	Enforced    Enforced

	PID  int    // of the process that asked, in the host's numbers; 0 unknown
	Comm string // its name, at most 15 bytes
	Exe  string // its program, if the event has a SYSCALL record
	Path string // as the process sees it, or "" where only Name is known
	Name string // last part of the path
	Dev  string // the kernel's name of the file system: a block device's, else the type's
	Ino  uint64

	Ioctl []uint16 // commands of an extended permission ioctl
	// Op is what was computed when Kind is Invalid, Context the context that is not valid.
	Op, Context string
	// Extra are the fields that nothing above holds, in their order: ports, capabilities, interfaces, and what newer kernels add.
	Extra []Field

	cwd    string // from the CWD record
	words  bool   // the record's values are in words
	copies uint64 // the hash of the copies of its record, if this one may be cut off; else 0
}

// Context is a security context as it stands in the record.
type Context = secontext.Context

// Field gives a field of Extra, "" if there is none.
func (d *Denial) Field(key string) string {
	for _, f := range d.Extra {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// reset makes the Denial ready for the next one; what its slices hold is kept for use.
func (d *Denial) reset() {
	*d = Denial{Permissions: d.Permissions[:0], Ioctl: d.Ioctl[:0], Extra: d.Extra[:0]}
}
