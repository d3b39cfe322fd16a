package stages

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/provision"
)

// ModeFile is what was written into /etc/selinux/config last. With it another writer of that file is told from a declaration that changed.
type ModeFile struct {
	// Mode was written, At that time, for what was Asked under mode and enforce, on the OS image with the policy Vendor.
	Mode   string    `json:"mode"`
	At     time.Time `json:"at"`
	Asked  string    `json:"asked"`
	Vendor string    `json:"vendor"`
	// Over is when the mode of somebody else was written over last; nothing if it never was.
	Over time.Time `json:"over,omitzero"`
}

// ForeignMode is a mode that somebody else wrote into /etc/selinux/config, and that is left there.
type ForeignMode struct {
	Mode    string    `json:"mode"`    // that stands there now
	Changed time.Time `json:"changed"` // when the file was changed
	Over    time.Time `json:"over"`    // when such a change was written over before
	// MentionedIn are units, timers and scripts of this host in which the file is named. One of them may be the writer; absent if there are none.
	MentionedIn []string `json:"mentioned_in,omitempty"`
}

// overwriteAgain is how long after one change of somebody else's that was written over another one is left alone.
const overwriteAgain = 30 * 24 * time.Hour

// modeScene is what the enforce stage finds in /etc/selinux/config where it wants another mode.
type modeScene struct {
	last          *ModeFile // nil: nothing is known
	found         seconfig.Config
	want          string
	asked, vendor string
	now           time.Time
	overwrite     bool // the operator says so
}

// fate is what becomes of the file.
type fate int

const (
	write     fate = iota // it is this program's turn
	writeOver             // somebody else changed it, and that is not known to go on
	leave                 // somebody else keeps changing it: the operator decides
)

// foreign tells whether nothing but another writer explains what stands there: since the file was written nobody declared the mode otherwise, and no
// update or rollback could bring the OS image's own file.
func (s modeScene) foreign() bool {
	return s.last != nil && s.last.Mode == s.want && s.last.Asked == s.asked && s.last.Vendor == s.vendor && !s.found.Trial && s.found.Mode != ""
}

// usable tells whether the next boot has SELinux.
func (s modeScene) usable() bool {
	return s.found.Mode == string(provision.Enforcing) || s.found.Mode == string(provision.Permissive)
}

// judge tells what becomes of a file that says another mode than it is to. A boot without SELinux is left to nobody: no stage would run in it and
// say so.
func (s modeScene) judge() fate {
	switch {
	case s.overwrite || !s.foreign():
		return write
	case !s.usable(), s.last.Over.IsZero(), s.now.Before(s.last.Over), s.now.Sub(s.last.Over) > overwriteAgain:
		return writeOver
	}
	return leave
}

// keepMode makes /etc/selinux/config say the declared mode for good, unless somebody else keeps changing it.
func (r *run) keepMode(content []byte, found seconfig.Config, mode string) plan.Plan {
	asked := r.asks()
	steps := r.configure(content, found, mode, false, asked)
	if r.Kernel == nil || found.Mode == mode { // an image is made by whoever asks for it, and no boot of it was
		return steps
	}
	s := modeScene{last: r.state.ModeFile, found: found, want: mode, asked: asked, vendor: r.state.Store.Vendor, now: time.Now(), overwrite: r.OverwriteConfig}
	switch s.judge() {
	case leave:
		r.foreign = &ForeignMode{Mode: found.Mode, Changed: r.configChanged(), Over: s.last.Over, MentionedIn: mentions(r.Root)}
		return nil
	case writeOver:
		next := "when that happens again, the file is left alone"
		if !s.usable() {
			next = "it is written over each time, as the next boot would have no SELinux"
		}
		steps[0].Reason += fmt.Sprintf(": somebody else changed it at %s, after %s had been written at %s%s; %s",
			r.configChanged().Format(time.RFC3339), s.last.Mode, s.last.At.Format(time.RFC3339), mentionedIn(mentions(r.Root)), next)
		steps[len(steps)-1] = r.recordMode(mode, asked, true)
	}
	return steps
}

// asks identifies what is declared of the mode.
func (r *run) asks() string {
	if r.declared == nil {
		return ""
	}
	wish := r.declared.ModeFingerprint()
	return hex.EncodeToString(wish[:])
}

// configure is the step that makes /etc/selinux/config say a mode, with or without the mark of a trial; none if it does.
func (r *run) configure(content []byte, configured seconfig.Config, mode string, mark bool, asked string) plan.Plan {
	var reason string
	switch {
	case configured.Mode == mode && configured.Trial == mark:
		return nil
	case configured.Mode == mode:
		reason = map[bool]string{true: "the mode is on trial", false: "no trial is under way any more"}[mark]
	case configured.Mode == "":
		reason = "it does not say the mode"
	default:
		reason = fmt.Sprintf("it says SELINUX=%s", configured.Mode)
	}
	content = seconfig.SetTrial(seconfig.SetMode(content, mode), mark)
	steps := plan.Plan{plan.Write(r.Root, seconfig.Path, content, hostfs.Attributes{Keep: true}, reason)}
	if r.Kernel == nil {
		return steps
	}
	return append(steps, r.recordMode(mode, asked, false))
}

// recordMode is the step that notes which mode was written, and whether over somebody else's. The record of the stage makes it last.
func (r *run) recordMode(mode, asked string, over bool) plan.Step {
	return plan.Step{Action: "record", Target: stateFile, Reason: "another writer of " + seconfig.Path + " is known by it", Quiet: true,
		Do: func(context.Context) (string, error) {
			next := &ModeFile{Mode: mode, At: time.Now().UTC().Truncate(time.Second), Asked: asked, Vendor: r.state.Store.Vendor}
			if old := r.state.ModeFile; over {
				next.Over = next.At
			} else if old != nil && !r.OverwriteConfig && old.Asked == asked {
				next.Over = old.Over
			}
			r.state.ModeFile = next
			return "recorded", nil
		},
	}
}

// forgetMode is the step after which it does not matter any more who writes the file.
func (r *run) forgetMode(before plan.Plan) plan.Plan {
	if r.state.ModeFile == nil && len(before) == 0 {
		return nil
	}
	return append(before, plan.Step{Action: "record", Target: stateFile, Reason: "the mode is not declared any more", Quiet: true,
		Do: func(context.Context) (string, error) {
			r.state.ModeFile = nil
			return "recorded", nil
		},
	})
}

// checkModeFile says that another writer has the last word about the next boot.
func (r *run) checkModeFile() []Problem {
	f := r.foreign
	if f == nil {
		return nil
	}
	return []Problem{{
		Problem: fmt.Sprintf("%s says SELINUX=%s for the next boot: somebody else changed it at %s%s, after such a change had been written over at %s; it is left alone now",
			seconfig.Path, f.Mode, f.Changed.Format(time.RFC3339), mentionedIn(f.MentionedIn), f.Over.Format(time.RFC3339)),
		Remedy: fmt.Sprintf("stop who changes it, then run: selinux-provision apply --overwrite-config; or let them have it: declare mode: %s, or unmanaged", f.Mode),
	}}
}

func mentionedIn(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " (the file is named in " + printable.Text(strings.Join(names, ", ")) + ")"
}

// configChanged tells when /etc/selinux/config was changed.
func (r *run) configChanged() time.Time {
	info, err := r.Root.Stat(seconfig.Path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime.UTC().Truncate(time.Second)
}

const (
	mostMentions   = 5
	mostLooks      = 500
	longestMention = 64 << 10
)

// mentions looks for who may write /etc/selinux/config: units, timers and scripts that name it. It is a hint, and no more is read than a little.
func mentions(root *hostfs.Root) (found []string) {
	dirs, looks := []string{"/etc/systemd/system", "/etc/cron.d", "/etc/cron.daily", "/etc/cron.hourly", "/opt/bin", "/opt/libexec", "/usr/local/bin", "/usr/share/oem/bin", "/oem/bin"}, 0
	for i := 0; i < len(dirs); i++ {
		entries, err := root.ReadDir(dirs[i])
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := path.Join(dirs[i], e.Name())
			if looks++; looks > mostLooks || len(found) >= mostMentions {
				return found
			}
			if strings.HasPrefix(e.Name(), "selinux-provision") {
				continue
			}
			if e.IsDir() && strings.HasPrefix(name, dirs[0]) {
				dirs = append(dirs, name) // drop-ins
			}
			if info, err := root.Lstat(name); err != nil || !info.Mode.IsRegular() || info.Size > longestMention {
				continue
			}
			if content, err := root.ReadFile(name); err == nil && bytes.Contains(content, []byte(seconfig.Path)) {
				found = append(found, name)
			}
		}
	}
	return found
}
