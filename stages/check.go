package stages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
)

// ImageCheck is what would become of the declared state on another OS image. It is written by CheckImage and read by status.
type ImageCheck struct {
	// Vendor is the fingerprint of that image's vendor policy.
	Vendor string `json:"vendor"`
	// Tools tells whose semodule built it: "image" or "host".
	Tools string `json:"tools"`
	// LeftOut is what does not build with that vendor policy.
	LeftOut []policystore.Quarantined `json:"left_out"`
	// Unstartable names containers that ran when it was checked, and the type of theirs that is left out: there they could not be started.
	Unstartable []string `json:"unstartable,omitempty"`
	// Replacing are modules, PRIORITY/NAME, that were installed by hand and are in the place of one of that image's there: what that one has is not in the policy.
	// They stay in force. Absent if there are none.
	Replacing []string `json:"replacing_vendor_modules,omitempty"`
	// Error says why nothing could be built at all.
	Error string `json:"error,omitempty"`
}

// OtherUsr in place of a directory asks CheckImage for the partition that the next boot after an OS update uses.
const OtherUsr = "other"

// CheckImage builds the declared state and the operator's modules against the /usr tree at the directory usr of this process,
// in scratch space. Nothing on the host changes but the record of the result.
func (h *Host) CheckImage(ctx context.Context, usr string) (*ImageCheck, error) {
	if _, err := h.Declared(); err != nil {
		return nil, err
	}
	if usr == OtherUsr {
		dir, unmount, err := h.mountOtherUsr(ctx)
		if err != nil {
			return nil, err
		}
		defer unmount()
		usr = dir
	}
	usr, err := filepath.Abs(usr)
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("/var/tmp", "selinux-provision-check-")
	if err != nil {
		return nil, fmt.Errorf("cannot make scratch space: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }() // systemd-tmpfiles ages what stays
	if err := h.rehearsal(usr, scratch); err != nil {
		return nil, fmt.Errorf("cannot set up a copy of the host: %w", err)
	}
	check, err := h.rehearse(ctx, usr, scratch)
	if err != nil {
		return nil, err
	}
	return check, h.remember(ctx, check)
}

// rehearsal copies what the stages read into the scratch directory: of /usr that of the image, of the rest that of the host.
func (h *Host) rehearsal(usr, scratch string) error {
	everything, err := hostfs.Open("/")
	if err != nil {
		return err
	}
	defer everything.Close()
	type copied struct{ from, to string }
	all := []copied{
		{h.Root.Path(policystore.EtcDir), policystore.EtcDir},
		{h.Root.Path(policystore.StoreDir), policystore.StoreDir},
		{h.Root.Path(StateDir), StateDir},
		{path.Join(usr, "lib/selinux"), policystore.VendorDir},
	}
	for _, layer := range seconfig.LowerLayers() {
		all = append(all, copied{path.Join(usr, strings.TrimPrefix(layer, "/usr"), "selinux"), layer + "/selinux"})
	}
	for _, c := range all {
		if info, err := everything.Stat(c.from); err != nil || !info.IsDir() {
			continue // absent in this layout, or dangling, which the stages repair
		}
		to := path.Join(scratch, c.to)
		if err := everything.MkdirAll(path.Dir(to), 0o755); err != nil {
			return err
		}
		if link, err := everything.Lstat(c.from); err == nil && link.IsLink() && c.to != policystore.VendorDir {
			continue // to the vendor's; the stages make a copy of that image's
		}
		if _, err := everything.CopyTree(c.from, to); err != nil {
			return err
		}
	}
	return everything.MkdirAll(path.Join(scratch, policystore.EtcDir), 0o755)
}

// rehearse runs the two stages that build on the copy.
func (h *Host) rehearse(ctx context.Context, usr, scratch string) (*ImageCheck, error) {
	root, err := hostfs.Open(scratch)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	vendor, err := policystore.FindVendor(root)
	if errors.Is(err, policystore.ErrNoVendor) {
		return nil, fmt.Errorf("cannot find a policy store in %s: it must be the /usr of an OS image", usr)
	}
	if err != nil {
		return nil, err
	}
	check := &ImageCheck{Vendor: vendor.Fingerprint, Tools: "host", LeftOut: []policystore.Quarantined{}}
	there := &Host{Root: root, Tools: h.Tools, Declared: h.Declared, LockWait: h.LockWait, Reporter: h.Reporter}
	// The image's own tools decide, where they are there: another libsepol may refuse what this one takes.
	if _, err := os.Stat(filepath.Join(usr, "sbin/semodule")); err == nil {
		there.Tools.Usr, check.Tools = usr, "image"
	}
	results, err := there.Run(ctx, []string{"policystore", "policy"}, false)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Err != nil && check.Error == "" {
			check.Error = strings.ReplaceAll(r.Err.Error(), scratch, "")
		}
	}
	if check.Error == "" {
		out, err := there.leftOut()
		if err != nil {
			return nil, err
		}
		for _, q := range out {
			q.Reason = strings.ReplaceAll(q.Reason, scratch, "")
			check.LeftOut = append(check.LeftOut, q)
		}
		check.Unstartable = h.lostIn(ctx, there)
		if check.Replacing, err = policystore.Replacing(root, vendor, &LoadState(root).Store); err != nil {
			return nil, err
		}
	}
	return check, nil
}

// leftOut gives what was left out of the policy that was built last, and what of it no file gets.
func (h *Host) leftOut() ([]policystore.Quarantined, error) {
	declared, err := h.Declared()
	if err != nil {
		return nil, err
	}
	r := h.newRun(declared, LoadState(h.Root), true)
	return r.compiler().LeftOut(r.state.Store.Type, &r.state.Store, declaredPolicy(r))
}

// remember puts the result where status finds it.
func (h *Host) remember(ctx context.Context, check *ImageCheck) error {
	unlock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	state := LoadState(h.Root)
	state.Check = check
	return state.save(h.Root)
}

// problems says what the next OS image would not do as declared.
func (c *ImageCheck) problems() []Problem {
	var problems []Problem
	if c.Error != "" {
		problems = append(problems, Problem{"the policy does not build with the checked OS image: " + c.Error,
			"on that image the vendor's own policy will be in force; correct it, then run: selinux-provision check --usr " + OtherUsr})
	}
	for _, q := range c.LeftOut {
		problems = append(problems, Problem{"the checked OS image does not build with " + q.String(),
			"on that image it will be left out; correct it, then run: selinux-provision check --usr " + OtherUsr})
	}
	for _, line := range c.Unstartable {
		problems = append(problems, Problem{"with the checked OS image nobody could start " + line + ": its policy does not have the type, and the container runtime says \"" + KeyCreate + "\"",
			"correct the module that declares the type, or start the container without it, then run: selinux-provision check --usr " + OtherUsr})
	}
	return problems
}

// mountOtherUsr mounts the partition of /usr that is not in use, read-only.
func (h *Host) mountOtherUsr(ctx context.Context) (dir string, unmount func(), err error) {
	if !h.Root.IsHost() {
		return "", nil, errors.New("cannot tell which /usr partition is not in use: this is not the running host: give a directory")
	}
	used, err := h.Root.DevicesBelow("/usr")
	if err != nil {
		return "", nil, fmt.Errorf("cannot find out which partition /usr is on: %w", err)
	}
	device, err := otherUsr(used, h.Root.DeviceOf)
	if err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp("/run", "selinux-provision-usr-"); err != nil {
		return "", nil, fmt.Errorf("cannot make a mount point: %w", err)
	}
	if _, err := h.Tools.Run(ctx, "mount", "-o", "ro", device, dir); err != nil {
		return "", nil, errors.Join(fmt.Errorf("cannot mount the other /usr partition: %w", err), os.Remove(dir))
	}
	return dir, func() {
		// A mount that stays goes with the unit's mount namespace.
		_, _ = h.Tools.Run(context.WithoutCancel(ctx), "umount", dir)
		_ = os.Remove(dir)
	}, nil
}

// otherUsr finds the partition: of USR-A and USR-B the one that is not among the devices that /usr comes from, be it directly or through
// dm-verity.
func otherUsr(used []string, deviceOf func(name string) (string, error)) (string, error) {
	var others []string
	for _, label := range []string{"USR-A", "USR-B"} {
		name := "/dev/disk/by-partlabel/" + label
		device, err := deviceOf(name)
		if err != nil {
			continue
		}
		if !slices.Contains(used, device) {
			others = append(others, name)
		}
	}
	if len(others) != 1 {
		return "", fmt.Errorf("cannot tell which /usr partition is not in use: found %d of USR-A and USR-B: give a directory", len(others))
	}
	return others[0], nil
}

// Check is CheckImage's result as a stage's, for the same output.
func (c *ImageCheck) Check() Result {
	r := Result{Stage: "check", Outcome: Unchanged, Problems: c.problems(), Done: []plan.Done{}}
	if len(r.Problems) > 0 {
		r.Outcome = Partly
	}
	return r
}
