package mounts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// FstabLine is a line of fstab(5), its fields free of escapes. Those that are not there are "".
type FstabLine struct {
	Line                       int
	What, Where, Type, Options string
}

// ParseFstab reads an fstab, at most 1 MiB of it, as systemd does. Lines that cannot be used are in the error.
func ParseFstab(r io.Reader) ([]FstabLine, error) {
	var (
		all      []FstabLine
		failures []error
		lines    = bufio.NewScanner(io.LimitReader(r, 1<<20))
	)
	lines.Buffer(nil, 1<<16)
	for n := 1; lines.Scan(); n++ {
		fields := strings.FieldsFunc(lines.Text(), func(r rune) bool { return r == ' ' || r == '\t' }) // not the other spaces of Unicode
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			failures = append(failures, fmt.Errorf("cannot use /etc/fstab:%d: it has only one field", n))
			continue
		}
		for i := range fields {
			fields[i] = unescapeFstab(fields[i])
		}
		fields = append(fields, "", "")
		all = append(all, FstabLine{Line: n, What: fields[0], Where: fields[1], Type: fields[2],
			// Where systemd takes the options apart it reads a doubled backslash as one, once more (fstab_filter_options).
			Options: strings.ReplaceAll(fields[3], `\\`, `\`)})
	}
	if err := lines.Err(); err != nil {
		failures = append(failures, fmt.Errorf("cannot read /etc/fstab: %w", err))
	}
	return all, errors.Join(failures...)
}

// unescapeFstab reads the escapes that the C library knows (getmntent(3)): systemd reads with it. All others stay as they are.
func unescapeFstab(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\\`, `\`).Replace(s)
}

// Tag takes apart what names a device by what is on it, such as LABEL="my data": mount(8) and systemd know four of these.
func Tag(what string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(what, "=")
	if !ok || !slices.Contains([]string{"LABEL", "UUID", "PARTLABEL", "PARTUUID"}, key) {
		return "", "", false
	}
	return key, strings.Trim(value, `"`), true
}

// ExcludesContext gives the first of a list of mount options that does not go with a context= beside it.
//
// The kernel takes no context= beside another one or a defcontext= (security/selinux/hooks.c, selinux_add_opt). Beside rootcontext= it
// does, but then the root of the file system has that label. fscontext= is the label of the file system as such, and goes with it.
func ExcludesContext(options string) (key, value string, ok bool) {
	for _, key := range []string{"context", "defcontext", "rootcontext"} {
		if value, ok := option(options, key); ok {
			return key, value, true
		}
	}
	return "", "", false
}
