package policystore

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// FallBack puts the vendor's own policy in force if the policy on the host was built from another vendor's than the store. The
// error says that it is, or could not be; nil: the policy is this vendor's.
func (b *Builder) FallBack(ctx context.Context, policyType string, rec *Record) error {
	if rec.Policy.Vendor == rec.Vendor && rec.Vendor != "" {
		return nil
	}
	return b.fallBack(ctx, policyType)
}

// fallBack puts the vendor's own policy in force, file by file, when not even that builds together with what is declared: a
// host must not go on with a policy that was made for another OS image. The next run tries to build again.
func (b *Builder) fallBack(ctx context.Context, policyType string) error {
	source, dest := VendorDir+"/"+policyType, EtcDir+"/"+policyType
	var policy string
	changed := false
	err := b.Root.Walk(source, func(below string, info hostfs.Entry) error {
		if !info.IsRegular() || !generated(below) {
			return nil
		}
		if path.Dir(below) == "policy" {
			policy = path.Base(below)
		}
		same, err := sameFile(b.Root, path.Join(source, below), path.Join(dest, below))
		if err != nil || same {
			return err
		}
		changed = true
		return copyFile(b.Root, path.Join(source, below), path.Join(dest, below))
	})
	if err == nil {
		for _, stale := range b.otherPolicies(policyType, policy) {
			changed = true
			err = errors.Join(err, b.Root.Remove(stale))
		}
	}
	if err == nil && changed && b.Kernel != nil {
		_, err = b.Tools.Run(ctx, "load_policy")
	}
	if err != nil {
		return fmt.Errorf("cannot put the vendor's own policy in force either: %w", err)
	}
	return errors.New("the vendor's own policy is in force, without what is declared")
}

// isolate copies the operator's modules that the transaction must leave out to the quarantine, so that they are not lost.
func (tx *transaction) isolate() error {
	for _, key := range tx.remove {
		to := tx.b.Quarantine + "/" + key
		if err := tx.b.Root.RemoveTree(to); err != nil {
			return err
		}
		if err := tx.b.Root.MkdirAll(path.Dir(to), 0o700); err != nil {
			return err
		}
		if _, err := tx.b.Root.CopyTree(active(tx.policyType)+"/modules/"+key, to); err != nil {
			return err
		}
	}
	return nil
}

// keepLocal copies one of the operator's local files to the quarantine.
func (b *Builder) keepLocal(dir, name string) error {
	if err := b.Root.MkdirAll(b.Quarantine+"/local", 0o700); err != nil {
		return err
	}
	return copyFile(b.Root, dir+"/"+name, b.Quarantine+"/local/"+name)
}

// release drops from the quarantine what the store has again: it was tried with another vendor's policy or installed anew.
func (b *Builder) release(policyType string) {
	for _, key := range quarantined(b.Root, b.Quarantine) {
		if strings.HasPrefix(key, "local/") {
			key = strings.TrimPrefix(key, "local/")
			if b.Root.Exists(active(policyType) + "/" + key) {
				_ = b.Root.Remove(b.Quarantine + "/local/" + key)
			}
			continue
		}
		if b.Root.Exists(active(policyType) + "/modules/" + key) {
			// A copy that stays behind does no harm: the next carry-over prefers the store's.
			_ = b.Root.RemoveTree(b.Quarantine + "/" + key)
		}
	}
}

// stillQuarantined gives the operator's modules that an earlier build left out and that are still out.
func stillQuarantined(b *Builder, rec *Record, now []Quarantined) []Quarantined {
	out := []Quarantined{}
	for _, q := range rec.Policy.Quarantine {
		if slices.ContainsFunc(now, func(n Quarantined) bool { return n.Kind == q.Kind && n.Name == q.Name && n.Priority == q.Priority }) {
			continue
		}
		if q.Kind == "local file" && b.Root.Exists(b.Quarantine+"/local/"+q.Name) {
			out = append(out, q)
		}
		if q.Kind == "module" && q.Priority != Priority && b.Root.Exists(b.Quarantine+"/"+strconv.Itoa(q.Priority)+"/"+q.Name) {
			out = append(out, q)
		}
	}
	return out
}
