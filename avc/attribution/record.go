package attribution

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// recordFile holds what was known of containers while they lived, for denials that are judged later. Losing it costs the names of those that are gone.
const recordFile = "/var/lib/selinux-provision/containers.json"

// The record's bounds. The oldest of those that are gone make room; a container with more mounts is remembered with the first of them.
const (
	maxRemembered = 512
	maxMounts     = 64
	maxText       = 512
	// keptFor is how long one that is gone is remembered: longer than journals are kept, and than anybody observes.
	keptFor = 30 * 24 * time.Hour
	// between is how long a container may have lived before it was seen first.
	between = 15 * time.Minute
)

// record is the file.
type record struct {
	// Version is the format's, 1. A file of another version counts as missing.
	Version    int          `json:"version"`
	Containers []remembered `json:"containers"` // in the order of their IDs
}

// remembered is what is kept of one container: its name, and what judging a denial of it takes.
type remembered struct {
	avc.Subject
	Label  string    `json:"label"`
	Mounts []Mount   `json:"mounts,omitempty"`
	From   time.Time `json:"from"`        // when it was made, or at the latest before it was seen
	To     time.Time `json:"to,omitzero"` // when it was gone; zero while it lives
}

// Remember writes down the containers that are there, and which of those that were there are gone. It writes only if there is something new.
func (h *Host) Remember(now time.Time) error {
	before := readRecord(h.root)
	after := before.after(h.alive(), now.UTC().Truncate(time.Second))
	if reflect.DeepEqual(before, after) {
		return nil
	}
	content, err := json.Marshal(after)
	if err == nil {
		err = h.root.WriteFile(recordFile, append(content, '\n'), hostfs.Attributes{Mode: 0o600})
	}
	if err != nil {
		return fmt.Errorf("cannot write down which containers run: %w", err)
	}
	return nil
}

// alive gives the containers that a denial could be told to be of after their end: those with categories.
func (h *Host) alive() map[string]*Container {
	all := map[string]*Container{}
	for id, c := range h.containers {
		if !c.gone && !c.sandbox && c.level() != "" {
			all[id] = c
		}
	}
	return all
}

// after gives the record once these containers are there.
func (r record) after(alive map[string]*Container, now time.Time) record {
	next := record{Version: 1}
	for _, one := range r.Containers {
		if alive[one.ID] == nil && one.To.IsZero() {
			one.To = now
		}
		if alive[one.ID] != nil {
			one.To = time.Time{} // podman and Docker start the same one again
			delete(alive, one.ID)
		}
		if one.To.IsZero() || now.Sub(one.To) < keptFor {
			next.Containers = append(next.Containers, one)
		}
	}
	for _, c := range alive {
		next.Containers = append(next.Containers, c.remembered(now))
	}
	// Those that live come last, and of the others the one that went first comes first.
	slices.SortFunc(next.Containers, func(a, b remembered) int {
		switch {
		case a.To.IsZero() != b.To.IsZero():
			return map[bool]int{true: 1, false: -1}[a.To.IsZero()]
		default:
			return cmp.Or(a.To.Compare(b.To), a.From.Compare(b.From), strings.Compare(a.ID, b.ID))
		}
	})
	next.Containers = next.Containers[max(0, len(next.Containers)-maxRemembered):]
	slices.SortFunc(next.Containers, func(a, b remembered) int { return strings.Compare(a.ID, b.ID) })
	return next
}

func (c *Container) remembered(now time.Time) remembered {
	one := remembered{Subject: c.Subject, Label: c.Label, From: c.life.from.UTC()}
	if one.From.IsZero() || one.From.After(now) {
		one.From = now.Add(-between)
	}
	for _, text := range []*string{&one.Container, &one.Image, &one.Pod, &one.Manifest, &one.Unit} {
		*text = (*text)[:min(len(*text), maxText)]
	}
	for _, m := range c.Mounts {
		if len(one.Mounts) < maxMounts && len(m.Source)+len(m.Destination) <= 2*maxText {
			one.Mounts = append(one.Mounts, m)
		}
	}
	return one
}

// readRecord reads the file. Anything that is wrong with it gives an empty one.
func readRecord(root *hostfs.Root) record {
	content, err := root.ReadFile(recordFile)
	if err != nil {
		return record{Version: 1}
	}
	return parseRecord(content)
}

func parseRecord(content []byte) record {
	var r record
	if json.Unmarshal(content, &r) != nil || r.Version != 1 {
		return record{Version: 1}
	}
	if len(r.Containers) == 0 {
		r.Containers = nil
	}
	return r
}

// recall enters what is remembered of containers of which their runtimes say nothing any more, or too little.
func (h *Host) recall() {
	for _, one := range readRecord(h.root).Containers {
		have := h.containers[one.ID]
		switch {
		case one.ID == "" || have != nil && have.Label != "":
		case have != nil: // its log is there
			have.Label, have.Mounts = one.Label, one.Mounts
			have.Subject.Image, have.Subject.Runtime = one.Image, one.Runtime
			if have.life == (span{}) {
				have.life = span{one.From, one.To}
			}
			have.gone = true
		default:
			h.containers[one.ID] = &Container{Subject: one.Subject, Label: one.Label, Mounts: one.Mounts, life: span{one.From, one.To}, gone: true}
		}
	}
}
