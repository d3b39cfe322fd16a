package mountwatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// What is seen from a unit's own mount namespace: the host's mounts are known by device and mountpoint, and of what is in them and what devices
// are called the watcher's record alone tells. A record of what is mounted no more, or of another rule, counts no more.
func TestRecorded(t *testing.T) {
	at := func(id int, point, fstype string) *mounts.Mount {
		return &mounts.Mount{ID: id, Parent: 1, Device: mounts.Device{Major: 8, Minor: uint32(id)}, Root: "/", Mountpoint: point, FSType: fstype, Options: "rw", SuperOptions: "rw,seclabel"}
	}
	byOption := at(7, "/srv/option", "ext4")
	byOption.SuperOptions = "rw,context=" + shared
	table := mounts.NewTable([]*mounts.Mount{at(2, "/srv/done", "ext4"), at(3, "/srv/failed", "ext4"), at(4, "/srv/named", "ext4"), at(5, "/srv/new", "ext4"),
		at(6, "/srv/changed", "ext4"), byOption, at(8, "/srv/other", "ext4"), at(9, "/run/user/0", "tmpfs")})
	rule := func(name string, match judge.Match) judge.Rule { return judge.Rule{Name: name, Match: match} }
	config := Config{Rules: []judge.Rule{rule("done", judge.Match{Mountpoint: "/srv/done"}), rule("failed", judge.Match{Mountpoint: "/srv/failed"}),
		rule("named", judge.Match{Label: "NAMED"}), rule("new", judge.Match{Mountpoint: "/srv/new"}), rule("changed", judge.Match{Mountpoint: "/srv/changed"}),
		rule("option", judge.Match{Mountpoint: "/srv/option"}), rule("gone", judge.Match{Mountpoint: "/srv/gone"}), rule("memory", judge.Match{FSType: "tmpfs"})}}
	of := func(rule string, minor int, state State) Volume {
		return Volume{Rule: rule, Mountpoint: "/srv/" + rule, Device: fmt.Sprintf("8:%d", minor), MountID: 1<<40 + uint64(minor), Context: shared, State: state, Files: &Files{Millis: 7}}
	}
	changed := of("changed", 6, Labelled)
	changed.Context = shared + ":c1,c2"
	record := &Record{Volumes: []Volume{of("done", 2, Labelled), of("failed", 3, Failed), of("named", 4, Labelled), changed, of("gone", 10, Labelled)}}
	all, err := recorded(judge.Host{SELinux: true, DefaultContext: shared}, config, table, record)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all {
		got = append(got, fmt.Sprint(v.Rule, " ", v.Mountpoint, " ", v.State, " ", v.Files != nil))
	}
	want := []string{"done /srv/done labelled true", "failed /srv/failed failed true", "named /srv/named labelled true", "new /srv/new pending false",
		"changed /srv/changed pending false", "option /srv/option labelled false", "memory /run/user/0 left alone false", "gone /srv/gone not mounted false", "memory  not mounted false"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
