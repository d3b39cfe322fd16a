package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/messages"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// Each kind of event has a MESSAGE_ID of its own.
func TestVolumeMessages(t *testing.T) {
	events := []mountwatch.Event{
		{Kind: mountwatch.VolumeRefused}, {Kind: mountwatch.VolumeLabelled}, {Kind: mountwatch.Remounted}, {Kind: mountwatch.Recovered},
		{Kind: mountwatch.RelabelStarted}, {Kind: mountwatch.RelabelDone}, {Kind: mountwatch.NotShared}, {Kind: mountwatch.Declared},
		{Kind: mountwatch.NotDeclared}, {Kind: mountwatch.ConfigRead}, {Kind: mountwatch.ConfigBad}, {Kind: mountwatch.CannotRemember},
		{Kind: mountwatch.Watching}, {Kind: mountwatch.VolumeTaken},
	}
	for _, code := range []judge.Code{
		judge.CodeSELinuxOff, judge.CodeTie, judge.CodeTwoLabels, judge.CodeProhibited, judge.CodeBtrfs, judge.CodeBind, judge.CodeReadOnly, judge.CodeNoWay,
		judge.CodeNoRelabel, judge.CodeOtherContext, judge.CodeSeveralMounts, judge.CodeNoDefault, judge.CodeNoAnswer,
		mountwatch.CodeUnknownContext, mountwatch.CodeDenied, mountwatch.CodeBusy, judge.CodeNoRemount, mountwatch.CodeRemountFailed, mountwatch.CodeLost, mountwatch.CodeRelabelFailed,
	} {
		events = append(events, mountwatch.Event{Kind: mountwatch.VolumeRefused, Volume: mountwatch.Volume{Code: code}})
	}
	known := map[messages.Kind]string{}
	for _, m := range messages.All() {
		known[m.Kind] = m.ID
	}
	for _, e := range events {
		kind := volumeMessage(e)
		if known[kind] == "" || kind.ID() != known[kind] {
			t.Errorf("%s %s: %s has no MESSAGE_ID of its own", e.Kind, e.Volume.Code, kind)
		}
		delete(known, kind)
	}
	for kind := range known {
		if strings.HasPrefix(string(kind), string(messages.Volume)) || strings.HasPrefix(string(kind), string(messages.Refused)) {
			t.Errorf("nothing ever says %s", kind)
		}
	}
	lost := mountwatch.Event{Kind: mountwatch.VolumeLost, Volume: mountwatch.Volume{Code: mountwatch.CodeLost}}
	if volumeMessage(lost) != messages.Refused+"lost" {
		t.Errorf("a lost volume is %s", volumeMessage(lost))
	}
}

// What a tired person reads in the journal.
func TestVolumeTexts(t *testing.T) {
	v := mountwatch.Volume{Rule: "data", Mountpoint: "/srv/data", Context: "u:r:t:s0", How: "labelled files",
		Files: &mountwatch.Files{Seen: 10, Set: 7, Already: 2, Resumed: 1, Millis: 1500}}
	late := v
	late.Late = true
	refused := v
	refused.State, refused.Code, refused.Reason, refused.Remedy = mountwatch.Refused, judge.CodeBtrfs, "it is on Btrfs", "use ext4 or xfs"
	lost := refused
	lost.State, lost.Code = mountwatch.Failed, mountwatch.CodeLost
	for _, c := range []struct {
		event mountwatch.Event
		level slog.Level
		want  string
	}{
		{mountwatch.Event{Kind: mountwatch.VolumeLabelled, Volume: v}, slog.LevelInfo, "volume data at /srv/data has its label u:r:t:s0 (labelled files)"},
		{mountwatch.Event{Kind: mountwatch.VolumeRefused, Volume: refused}, slog.LevelWarn, "data: cannot label /srv/data: it is on Btrfs: use ext4 or xfs"},
		{mountwatch.Event{Kind: mountwatch.VolumeLost, Volume: lost}, slog.LevelError + 4, "data: cannot label /srv/data: it is on Btrfs: use ext4 or xfs"},
		{mountwatch.Event{Kind: mountwatch.Remounted, Volume: v, Took: 12 * time.Millisecond}, slog.LevelInfo,
			"volume data at /srv/data was mounted again with the option context= [0.012 s]"},
		{mountwatch.Event{Kind: mountwatch.RelabelDone, Volume: v}, slog.LevelInfo, "volume data at /srv/data: 10 files, 7 got the label, 3 had it [1.5 s]"},
		{mountwatch.Event{Kind: mountwatch.RelabelDone, Volume: late}, slog.LevelWarn, "volume data at /srv/data: 10 files, 7 got the label, 3 had it [1.5 s]: " +
			"labelled after its pod had it, which may have met files without the label: restart the pod if it was denied them"},
		{mountwatch.Event{Kind: mountwatch.NotDeclared, Volume: v, Text: "no"}, slog.LevelInfo, "volume data at /srv/data: no"},
		{mountwatch.Event{Kind: mountwatch.NotDeclared, Text: "no", Err: errors.New("why")}, slog.LevelWarn, "no: why"},
		{mountwatch.Event{Kind: mountwatch.ConfigBad, Err: errors.New("a.yaml:3: x")}, slog.LevelError,
			"the configuration is wrong, the one before still counts: a.yaml:3: x"},
	} {
		level, text := eventText(c.event)
		if level != c.level || text != c.want {
			t.Errorf("%s: %v %q\nwant %v %q", c.event.Kind, level, text, c.level, c.want)
		}
	}
}

func TestIsGenerator(t *testing.T) {
	for line, want := range map[string]bool{
		"/etc/systemd/system-generators/selinux-provision-generator /a /b /c": true,
		"selinux-provision-generator /a":                                      false,
		"/opt/bin/selinux-provision stage policy --dry-run":                   false,
		"/opt/bin/selinux-provision":                                          false,
	} {
		if got := isGenerator(strings.Fields(line)); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestWatchBeneathRoot(t *testing.T) {
	if got := call(t, "--root", t.TempDir(), "watch"); got.code != exitUsage || !strings.Contains(got.stderr, "cannot watch beneath --root") {
		t.Errorf("%+v", got)
	}
}

// A name that somebody else chose for a mount makes no line of its own, and no terminal obeys it.
func TestVolumeTextIsOneLine(t *testing.T) {
	_, text := eventText(mountwatch.Event{Kind: mountwatch.VolumeRefused, Volume: mountwatch.Volume{
		Rule: "data", Mountpoint: "/srv/a\n<0>kernel: b\x1b[2J", Reason: "one\ntwo", Remedy: "none"}})
	if got, want := oneLine(text), `data: cannot label /srv/a; <0>kernel: b\x1b[2J: one; two: none`; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
