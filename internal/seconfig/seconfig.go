// Package seconfig reads and edits /etc/selinux/config, the file that tells PID 1 which policy to load and in which mode
// (selinux_config(5)).
package seconfig

import (
	"bytes"
	"io"
	"strings"
)

// Path is where libselinux looks for the file.
const Path = "/etc/selinux/config"

// Config is what the file says. An empty field means that the file does not say it.
type Config struct {
	Mode string // enforcing, permissive, disabled, or what else is written there, in lower case
	Type string // the policy type: the name of a directory below /etc/selinux
	// Trial says that the mode is part of a trial of enforcing: with Mode enforcing the next boot is to prove itself, with
	// permissive the boot that does so is under way or was cut off.
	Trial bool
}

// trialMark is a comment to libselinux. It stands in this file, and not elsewhere, so that one rename changes it together with the
// mode, and so that a boot can be recognised before anything but the root file system is mounted.
const trialMark = "# selinux-provision: enforcing is on trial; see: selinux-provision status"

// Parse reads the file as libselinux does (selinux_config.c): KEY=VALUE at the very start of a line, the first SELINUX= line
// and the last SELINUXTYPE= line count, SELINUX is not case sensitive, white space ends a value.
func Parse(r io.Reader) (Config, error) {
	content, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return Config{}, err
	}
	var c Config
	for line := range strings.Lines(string(content)) {
		c.Trial = c.Trial || strings.TrimRight(line, "\r\n") == trialMark
		if v, ok := strings.CutPrefix(line, "SELINUX="); ok && c.Mode == "" {
			c.Mode = strings.ToLower(word(v))
		}
		if v, ok := strings.CutPrefix(line, "SELINUXTYPE="); ok {
			c.Type = word(v)
		}
	}
	return c, nil
}

func word(v string) string {
	if fields := strings.Fields(v); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// SetMode gives content with SELINUX=mode and everything else, comments included, as it was. A content without the line gets
// one at the end.
func SetMode(content []byte, mode string) []byte { return set(content, "SELINUX=", mode) }

// SetType is SetMode for SELINUXTYPE.
func SetType(content []byte, policyType string) []byte {
	return set(content, "SELINUXTYPE=", policyType)
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

func set(content []byte, key, value string) []byte {
	var out bytes.Buffer
	found := false
	for line := range bytes.Lines(content) {
		if bytes.HasPrefix(line, []byte(key)) {
			found = true
			line = []byte(key + value + "\n")
		}
		out.Write(line)
	}
	if !found {
		if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
			out.WriteByte('\n')
		}
		out.WriteString(key + value + "\n")
	}
	return out.Bytes()
}
