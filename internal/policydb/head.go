package policydb

import (
	"errors"
	"fmt"
	"io"
)

// The beginning of a binary policy (policydb_read in the kernel's security/selinux/ss/policydb.c).
const (
	magic         = 0xf97cff8c
	kernelPolicy  = "SE Linux"
	longestName   = 64
	longestHeader = 4 + 4 + longestName + 4 + 4
	configMLS     = 0x1
	configReject  = 0x2
	configAllow   = 0x4
)

// Unknown is what the kernel does with classes and permissions that it has and the policy has not.
type Unknown string

// The ways.
const (
	DenyUnknown   Unknown = "deny"
	AllowUnknown  Unknown = "allow"
	RejectUnknown Unknown = "reject" // the kernel does not load the policy
)

// Header is what a binary policy says of itself before anything else.
type Header struct {
	// Version is N of policy.N. It may be one that Parse does not know.
	Version int
	// MLS says that contexts have a level.
	MLS bool
	// Unknown says what becomes of classes and permissions that the policy does not define.
	Unknown Unknown
}

// FormError says that what was read is no policy of a form that this package knows: it is of a newer system, or damaged. Another try finds the
// same, which is not so of an error of the file.
type FormError struct{ Reason error }

// Error gives the reason.
func (e *FormError) Error() string { return e.Reason.Error() }

// Unwrap gives the reason.
func (e *FormError) Unwrap() error { return e.Reason }

// VersionError says that a policy is of a version that this package cannot read, most likely because the system is newer than the program.
type VersionError struct{ Version int }

// Error names the versions that can be read.
func (e *VersionError) Error() string {
	return fmt.Sprintf("its version is %d, and this program knows %d to %d", e.Version, oldest, newest)
}

// ReadHeader reads the first bytes of a binary policy, of any version. It tells nothing of the rest, which may be cut off.
func ReadHeader(in io.Reader) (Header, error) {
	content, err := io.ReadAll(io.LimitReader(in, longestHeader))
	if err != nil {
		return Header{}, fmt.Errorf("cannot read the policy: %w", err)
	}
	head, err := (&reader{left: content}).header()
	if err != nil {
		return Header{}, fmt.Errorf("cannot read the policy: %w", &FormError{err})
	}
	return head, nil
}

func (r *reader) header() (Header, error) {
	if len(r.left) == 0 {
		return Header{}, errors.New("it is empty")
	}
	if r.u32() != magic {
		return Header{}, errors.New("it is no binary policy")
	}
	if name := r.text(min(r.u32(), longestName)); name != kernelPolicy && r.err == nil {
		return Header{}, errors.New("it is not one that the kernel loads")
	}
	head := Header{Version: int(r.u32()), Unknown: DenyUnknown}
	config := r.u32()
	head.MLS = config&configMLS != 0
	switch {
	case config&configReject != 0:
		head.Unknown = RejectUnknown
	case config&configAllow != 0:
		head.Unknown = AllowUnknown
	}
	return head, r.err
}
