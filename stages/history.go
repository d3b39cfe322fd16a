package stages

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/provision"
)

const (
	// maxHistory is how many changes are remembered, longestHistory how far back the report looks in the log.
	maxHistory     = 200
	longestHistory = 90 * 24 * time.Hour
)

// Change is something that was declared, declared otherwise, or is not declared any more.
type Change struct {
	// Time is when that was first seen; of what was declared before anybody looked, when the policy was built that was in force then.
	Time time.Time `json:"time"`
	Kind string    `json:"kind"` // module, boolean, label, volume or setting
	Name string    `json:"name"` // of the module, boolean or volume; the path that gets a label; the key of the setting
	// Change is declared, changed or removed.
	Change string `json:"change"`          // declared, changed or removed
	Value  string `json:"value,omitempty"` // of a boolean, label or setting
}

// declarations gives what bears on denials of all that is declared, as "KIND NAME", with a value that changes when it does.
func declarations(d *provision.State) map[string]string {
	all := map[string]string{"setting mode": string(d.Mode)}
	for _, m := range d.Modules {
		sum := sha256.Sum256(m.Content)
		all["module "+m.Name] = hex.EncodeToString(sum[:6])
	}
	for name, on := range d.Booleans {
		all["boolean "+name] = strconv.FormatBool(on)
	}
	for _, c := range d.FileContexts {
		name := "label " + c.Path
		if c.Type != "any" {
			name += " (" + c.Type + ")"
		}
		all[name] = c.Context
	}
	for _, e := range d.Equivalences {
		all["label "+e.Path] = "like " + e.Like
	}
	for _, v := range d.Volumes {
		label := v.Context
		if label == "" {
			label = strings.TrimSpace("the default " + v.Level)
		}
		all["volume "+v.Name] = label
	}
	if d.SharedVolumes {
		all["setting policy.shared_volumes"] = "true"
	}
	if len(d.PermissiveDomains) > 0 {
		var names []string
		for _, p := range d.PermissiveDomains {
			names = append(names, p.Type)
		}
		all["setting enforce.permissive_domains"] = strings.Join(names, " ")
	}
	if d.StripDontaudit {
		all["setting audit.dontaudit"] = "strip"
	}
	return all
}

// changed adds to a history what a sample shows.
func changed(history []Change, before map[string]string, s *Sample) []Change {
	at := s.Time
	if before == nil && !s.Built.IsZero() && s.Built.Before(at) {
		at = s.Built.UTC()
	}
	add := func(key, change, value string) {
		kind, name, _ := strings.Cut(key, " ")
		if kind == "module" {
			value = "" // its digest, which tells nobody anything
		}
		history = append(history[:len(history):len(history)], Change{Time: at, Kind: kind, Name: name, Change: change, Value: value})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Declared)) {
		switch old, known := before[key]; {
		case !known:
			add(key, "declared", s.Declared[key])
		case old != s.Declared[key]:
			add(key, "changed", s.Declared[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, still := s.Declared[key]; !still {
			add(key, "removed", "")
		}
	}
	return history[max(0, len(history)-maxHistory):]
}

// AddTimeline reads the log once more, for when things were denied: from the first declaration on that is remembered.
func (h *Host) AddTimeline(ctx context.Context, r *Readiness) (err error) {
	if h.Evidence.Timeline == nil {
		return nil
	}
	from := r.At
	if !r.Since.IsZero() && r.Since.Before(from) {
		from = r.Since
	}
	for _, c := range r.History {
		if c.Time.Before(from) {
			from = c.Time
		}
	}
	if oldest := r.At.Add(-longestHistory); from.Before(oldest) {
		from = oldest
	}
	// What came before a declaration is what it was made for.
	from = from.Add(-max(time.Hour, r.At.Sub(from)/8))
	if r.Timeline, err = h.Evidence.Timeline(ctx, from, r.At); err != nil {
		return fmt.Errorf("cannot tell when accesses were denied: %w", err)
	}
	if h.Evidence.Gone != nil {
		if r.TimelineGap, err = h.Evidence.Gone(ctx, r.Timeline.From); err != nil {
			return fmt.Errorf("cannot tell when accesses were denied: %w", err)
		}
	}
	return nil
}
