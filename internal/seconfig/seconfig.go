// Package seconfig is the one map of /etc/selinux: which policy the host has and in which mode (selinux_config(5)), which binary policies
// there are and which one PID 1 takes, and where a policy says which contexts what has.
//
// What stands in those files is for others to read: policies for internal/policydb, file contexts for internal/filecontexts.
package seconfig

import (
	"bytes"
	"io"
	"strings"
	"unicode"
)

// Path is where libselinux looks for the file.
const Path = Dir + "/config"

// Config is what the file says. An empty field means that the file does not say it.
type Config struct {
	Mode string // enforcing, permissive, disabled, or what else is written there, in lower case
	Type string // the policy type: the name of a directory below /etc/selinux
	// EmptyType says that the file names no type in so many words, with nothing behind SELINUXTYPE=.
	EmptyType bool
	// Trial says that the mode is part of a trial of enforcing: with Mode enforcing the next boot is to prove itself, with
	// permissive the boot that does so is under way or was cut off.
	Trial bool
}

// defaultType is the type that libselinux takes where the file has no line SELINUXTYPE= (SELINUXDEFAULT in selinux_config.c).
const defaultType = "targeted"

// Taken gives the type that libselinux takes, and PID 1 with it: it looks for the policy in the directory of that name below Dir, and where
// the name is empty in Dir itself.
func (c Config) Taken() string {
	if c.Type == "" && !c.EmptyType {
		return defaultType
	}
	return c.Type
}

// trialMark is a comment to libselinux. It stands in this file, and not elsewhere, so that one rename changes it together with the
// mode, and so that a boot can be recognised before anything but the root file system is mounted.
const trialMark = "# selinux-provision: enforcing is on trial; see: selinux-provision status"

// Parse reads the file as libselinux does (selinux_config.c). The mode is in the first line that has SELINUX= at its very start and then
// one of the three words, which may go on with anything; where there is none, Mode is what stands in the first such line. The type is
// all that stands in the last line with SELINUXTYPE=, in letters of any size, without the white space around it: a comment behind it is
// part of it.
func Parse(r io.Reader) (Config, error) {
	content, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return Config{}, err
	}
	var c Config
	known := false
	for line := range strings.Lines(string(content)) {
		c.Trial = c.Trial || strings.TrimRight(line, "\r\n") == trialMark
		if v, ok := strings.CutPrefix(line, modeKey); ok && !known {
			word := strings.ToLower(firstWord(v))
			for _, mode := range []string{"enforcing", "permissive", "disabled"} {
				if strings.HasPrefix(word, mode) {
					word, known = mode, true
				}
			}
			if known || c.Mode == "" {
				c.Mode = word
			}
		}
		if v, ok := typeIn(line); ok {
			c.Type = strings.TrimRightFunc(strings.TrimSpace(v), unicode.IsControl)
			c.EmptyType = c.Type == ""
		}
	}
	return c, nil
}

const (
	modeKey = "SELINUX="
	typeKey = "SELINUXTYPE="
)

func isModeLine(line string) bool { return strings.HasPrefix(line, modeKey) }

func isTypeLine(line string) bool { _, ok := typeIn(line); return ok }

// typeIn gives what stands behind SELINUXTYPE= in a line that has it.
func typeIn(line string) (string, bool) {
	line = strings.TrimLeft(line, " \t\v\f\r")
	if len(line) < len(typeKey) || !strings.EqualFold(line[:len(typeKey)], typeKey) {
		return "", false
	}
	return line[len(typeKey):], true
}

func firstWord(v string) string {
	if fields := strings.Fields(v); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// SetMode gives content with SELINUX=mode and everything else, comments included, as it was. A content without the line gets
// one at the end.
func SetMode(content []byte, mode string) []byte { return set(content, isModeLine, modeKey+mode) }

// SetType is SetMode for SELINUXTYPE.
func SetType(content []byte, policyType string) []byte {
	return set(content, isTypeLine, typeKey+policyType)
}

// SetTrial gives content with or without the mark of a trial, and everything else as it was. The mark is the last line.
func SetTrial(content []byte, on bool) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(content) {
		if string(bytes.TrimRight(line, "\r\n")) != trialMark {
			out.Write(line)
		}
	}
	if on {
		if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
			out.WriteByte('\n')
		}
		out.WriteString(trialMark + "\n")
	}
	return out.Bytes()
}

func set(content []byte, is func(line string) bool, want string) []byte {
	var out bytes.Buffer
	found := false
	for line := range bytes.Lines(content) {
		if is(string(line)) {
			found = true
			line = []byte(want + "\n")
		}
		out.Write(line)
	}
	if !found {
		if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
			out.WriteByte('\n')
		}
		out.WriteString(want + "\n")
	}
	return out.Bytes()
}
