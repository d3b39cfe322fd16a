package policystore

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// FallBack puts the vendor's own policy in force if the policy on the host was built from another vendor's than the store. The
// error says that it is, or could not be; nil: the policy is this vendor's.
func (c *Compiler) FallBack(ctx context.Context, policyType string, rec *Record) error {
	if rec.Policy.Vendor == rec.Vendor && rec.Vendor != "" {
		return nil
	}
	return c.fallBack(ctx, policyType)
}

// fallBack puts the vendor's own policy in force, file by file, when not even that builds together with what is declared: a
// host must not go on with a policy that was made for another OS image. The next run tries to build again.
func (c *Compiler) fallBack(ctx context.Context, policyType string) error {
	source, dest := path.Join(VendorEtc(c.Root), policyType), EtcDir+"/"+policyType
	var policy string
	changed := false
	err := c.Root.Walk(source, func(below string, info hostfs.Entry) error {
		if !info.IsRegular() || !generated(below) {
			return nil
		}
		if path.Dir(below) == "policy" {
			policy = path.Base(below)
		}
		same, err := sameFile(c.Root, path.Join(source, below), path.Join(dest, below))
		if err != nil || same {
			return err
		}
		changed = true
		return copyFile(c.Root, path.Join(source, below), path.Join(dest, below))
	})
	if err == nil {
		for _, stale := range c.otherPolicies(policyType, policy) {
			changed = true
			err = errors.Join(err, c.Root.Remove(stale))
		}
	}
	if err == nil && changed && c.Kernel != nil {
		_, err = c.Tools.Run(ctx, "load_policy")
	}
	if err != nil {
		return fmt.Errorf("cannot put the vendor's own policy in force either: %w", err)
	}
	return errors.New("the vendor's own policy is in force, without what is declared")
}
