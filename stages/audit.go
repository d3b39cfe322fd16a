package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/policystore"
)

const (
	rulesDir  = "/etc/audit/rules.d"
	rulesUnit = "audit-rules.service"
)

// hidingFiles are the vendor's rule files that keep denials from the journal. 80-selinux.rules excludes the message types of
// SELinux, whatever its comment says, because the kernel ignores the action of a rule on the exclude list; 99-default.rules
// excludes everything. 00-clear.rules stays: without it the kernel's old rules are never flushed. The files are overwritten and
// not removed, because some releases make missing ones again at every boot.
func hidingFiles() []string {
	return []string{rulesDir + "/80-selinux.rules", rulesDir + "/99-default.rules"}
}

const neutralMark = "# Neutralised by selinux-provision"

func neutral(name string) []byte {
	return []byte(neutralMark + `: audit.log_denials is true in its configuration.
# The vendor's rules in this file kept SELinux denials from the journal.
# They are still in /usr/share/audit/rules.d/` + path.Base(name) + `. "selinux-provision revert" brings them back.
`)
}

func planAudit(ctx context.Context, r *run) (plan.Plan, error) {
	if info, err := r.Root.Stat(rulesDir); err != nil || !info.IsDir() {
		if r.declared.LogDenials && r.Root.IsHost() {
			if hiding, err := r.HidingRules(ctx); err == nil && len(hiding) == 0 {
				return nil, nil // an image without audit rules, as Flatcar's sibling
			}
			return nil, fmt.Errorf("cannot neutralise the audit rules that hide denials: there is no %s on this host", r.Root.Path(rulesDir))
		}
		return nil, nil
	}
	var steps plan.Plan
	for _, name := range hidingFiles() {
		content, err := r.Root.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot read an audit rule file: %w", err)
		}
		switch {
		case r.declared.LogDenials && len(hidingRules(string(content))) > 0:
			steps = append(steps, r.keepRules(name, content)...)
			steps = append(steps, plan.Write(r.Root, name, neutral(name), hostfs.Attributes{Mode: 0o640, Keep: true}, "its rules keep denials from the journal"))
		case !r.declared.LogDenials && bytes.HasPrefix(content, []byte(neutralMark)) && r.state.Rules[name] != "":
			steps = append(steps, plan.Write(r.Root, name, []byte(r.state.Rules[name]), hostfs.Attributes{Keep: true}, "audit.log_denials is not declared any more"))
		case !r.declared.LogDenials && bytes.HasPrefix(content, []byte(neutralMark)):
			restore, err := policystore.RestoreFile(r.Root, name, "audit.log_denials is not declared any more")
			if err != nil {
				return nil, fmt.Errorf("cannot find the vendor's audit rules: %w", err)
			}
			steps = append(steps, restore...)
		}
	}
	if r.RestartUnit == nil {
		return steps, nil
	}
	reason := "rule files changed"
	if len(steps) == 0 && r.declared.LogDenials {
		hiding, err := r.HidingRules(ctx)
		if err != nil {
			return nil, err
		}
		if len(hiding) == 0 {
			return nil, nil
		}
		reason = "the kernel has a rule that keeps denials from the journal: " + hiding[0]
	}
	if len(steps) > 0 || r.declared.LogDenials {
		steps = append(steps, reloadRules(r.Host, reason))
	}
	return steps, nil
}

// keepRules remembers the text of a rule file that is not the vendor's, for the day when it may have it back.
func (r *run) keepRules(name string, content []byte) plan.Plan {
	vendors, err := r.Root.ReadFile("/usr/share/audit/rules.d/" + path.Base(name))
	if err != nil || bytes.Equal(vendors, content) || len(content) > 1<<20 {
		return nil
	}
	return plan.Plan{{Action: "record", Target: name, Reason: "it is not the vendor's text", Quiet: true,
		Do: func(context.Context) (string, error) {
			rules := map[string]string{name: string(content)}
			for other, text := range r.state.Rules {
				if other != name {
					rules[other] = text
				}
			}
			r.state.Rules = rules
			return "recorded", nil
		}}}
}

func reloadRules(h *Host, reason string) plan.Step {
	return plan.Step{
		Action: "reload", Target: rulesUnit, Reason: reason,
		Do: func(ctx context.Context) (string, error) {
			if err := h.RestartUnit(ctx, rulesUnit); err != nil {
				return "", fmt.Errorf("cannot load the audit rules: %w", err)
			}
			return "audit rules loaded", nil
		},
	}
}

// checkAudit asks the kernel whether denials reach the journal now.
func checkAudit(ctx context.Context, r *run) ([]Problem, error) {
	if !r.declared.LogDenials || r.RestartUnit == nil {
		return nil, nil
	}
	hiding, err := r.HidingRules(ctx)
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, rule := range hiding {
		problems = append(problems, Problem{
			Problem: "the kernel still has an audit rule that keeps denials from the journal: " + rule,
			Remedy:  "find the file in " + rulesDir + " that has it, remove it there, then run: selinux-provision stage audit",
		})
	}
	return problems, nil
}

// HidingRules gives those audit rules of the kernel that keep denials from the journal.
func (h *Host) HidingRules(ctx context.Context) ([]string, error) {
	out, err := h.Tools.Run(ctx, "auditctl", "-l")
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for its audit rules: %w", err)
	}
	return hidingRules(out.Stdout), nil
}

// The kernel's record type for a denial (include/uapi/linux/audit.h), and the names near it that auditctl prints for numbers.
const typeAVC = 1400

func messageType(name string) (int, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, true
	}
	switch name {
	case "AVC":
		return typeAVC, true
	case "SELINUX_ERR":
		return 1401, true
	case "AVC_PATH":
		return 1402, true
	case "MAC_POLICY_LOAD":
		return 1403, true
	case "CONFIG_CHANGE":
		return 1305, true
	case "USER_AVC":
		return 1107, true
	}
	return 0, false
}

// hidingRules picks from "auditctl -l" the rules on the exclude list that match a denial. A condition that is not
// understood counts as one that matches: it is better to show a harmless rule than to call the journal complete.
func hidingRules(listing string) []string {
	var hiding []string
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		exclude, matches := false, true
		for i, w := range words {
			if i == 0 {
				continue
			}
			switch words[i-1] {
			case "-a", "-A":
				list, action, _ := strings.Cut(w, ",")
				exclude = list == "exclude" || action == "exclude"
			case "-F":
				matches = matches && matchesDenial(w)
			}
		}
		if exclude && matches {
			hiding = append(hiding, strings.TrimSpace(line))
		}
	}
	return hiding
}

func matchesDenial(condition string) bool {
	rest, ok := strings.CutPrefix(condition, "msgtype")
	if !ok {
		return true
	}
	operator := rest[:len(rest)-len(strings.TrimLeft(rest, "=<>!&"))]
	value, known := messageType(rest[len(operator):])
	switch {
	case !known:
		return operator != "="
	case operator == "=":
		return typeAVC == value
	case operator == "!=":
		return typeAVC != value
	case operator == "<":
		return typeAVC < value
	case operator == "<=":
		return typeAVC <= value
	case operator == ">":
		return typeAVC > value
	case operator == ">=":
		return typeAVC >= value
	}
	return true
}
