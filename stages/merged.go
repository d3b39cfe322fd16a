package stages

import (
	"context"
	"fmt"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

const (
	// confextImages is where the OS image has what systemd-confext merges into /etc, since Flatcar 4628.
	confextImages = "/usr/lib/confexts"
	// mergePatience bounds how long a look at the host waits for an /etc that is being merged anew, which takes a part of a second.
	mergePatience = 10 * time.Second
	mergePause    = 50 * time.Millisecond
	// mergeLooks bounds how often it is looked anew because /etc was merged anew meanwhile. On a slow host a look can take as long as it is
	// from one refresh to the next.
	mergeLooks = 10
)

// Settled gives what look finds in an /etc that was whole, and the same one from the beginning of the look to its end. "systemd-confext refresh"
// takes the overlay away and mounts a new one; in between, /etc is what the host wrote there alone, and what the OS image ships seems to be missing.
// That can go when it replaces the one mount by the other at once (systemd's change 43680). An /etc that stays like this is looked at as it is.
func Settled[T any](ctx context.Context, h *Host, look func() (T, error)) (T, error) {
	return settled(ctx, h.etc, look)
}

// settled is Settled with any answer to whether /etc is whole.
func settled[T any](ctx context.Context, etc func() (identity string, whole bool), look func() (T, error)) (T, error) {
	for looks := 1; ; looks++ {
		before, whole := waitWhole(ctx, etc)
		found, err := look()
		after, still := etc()
		if !whole || still && after == before || looks == mergeLooks || ctx.Err() != nil {
			return found, err
		}
	}
}

// waitWhole waits for a whole /etc, as long as mergePatience allows.
func waitWhole(ctx context.Context, etc func() (identity string, whole bool)) (identity string, whole bool) {
	ctx, cancel := context.WithTimeout(ctx, mergePatience)
	defer cancel()
	for {
		identity, whole = etc()
		if whole || ctx.Err() != nil {
			return identity, whole
		}
		select {
		case <-ctx.Done():
		case <-time.After(mergePause):
		}
	}
}

// etc tells which mount /etc is, and whether it is whole.
func (h *Host) etc() (identity string, whole bool) {
	if !h.Root.IsHost() {
		return "", true
	}
	if shipped, err := h.Root.ReadDir(confextImages); err != nil || len(shipped) == 0 {
		return "", true // nothing is merged, or something of the operator's alone, which may fit this OS image or not
	}
	table, err := mounts.Read()
	if err != nil {
		return "", true
	}
	identity, whole = mergedEtc(table)
	return fmt.Sprint(identity, " ", mounts.UniqueAt(h.Root.Path("/etc"))), whole
}

// mergedEtc is etc of a host whose /etc systemd-confext merges.
func mergedEtc(table []*mounts.Mount) (identity string, whole bool) {
	m := mergedAt(table, "/etc")
	if m == nil {
		return "", false
	}
	return fmt.Sprint(m.ID, m.Device), true
}

// mergedAt gives the overlay that systemd merged extension images with at a place; nil if there is none.
func mergedAt(table []*mounts.Mount, point string) *mounts.Mount {
	if m := mounts.At(table, point); m != nil && m.Mountpoint == point && m.FSType == "overlay" {
		return m
	}
	return nil
}
