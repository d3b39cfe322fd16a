package policystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// localBooleans is booleans.local of the active store, where setsebool -P keeps the values that differ from the policy's own.
// libsemanage merges it into the binary policy at every rebuild, so a value written there before semodule runs rides along
// in the same transaction; setsebool -P afterwards would cost another one.
type localBooleans struct {
	values   map[string]bool
	comments []string
	refused  []string // lines with which libsemanage builds nothing at all
}

// booleansFile is its name, in a store and in quarantine, where the lines are that libsemanage does not take.
const booleansFile = "booleans.local"

// oneBoolean is what bool_parse in libsemanage's booleans_file.c takes (3.1 to 3.11): several may be in one line, and nothing may be behind the
// last, no comment either.
var oneBoolean = lazyregexp.New(`^([^\s=]+)\s*=\s*(true|TRUE|false|FALSE|0*[01])(?:\s+|$)`)

// parseBooleans reads the format of libsemanage's booleans_file.c line by line.
func parseBooleans(r io.Reader) (localBooleans, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return localBooleans{}, err
	}
	b := localBooleans{values: map[string]bool{}}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		found, taken := map[string]bool{}, true
		if strings.HasPrefix(line, "#") {
			b.comments = append(b.comments, line)
			continue
		}
		for rest := line; rest != "" && taken; {
			m := oneBoolean().FindStringSubmatch(rest)
			if taken = m != nil; taken {
				found[m[1]] = strings.EqualFold(m[2], "true") || strings.HasSuffix(m[2], "1")
				rest = rest[len(m[0]):]
			}
		}
		if !taken {
			b.refused = append(b.refused, line)
			continue
		}
		maps.Copy(b.values, found)
	}
	return b, nil
}

func (b localBooleans) encode() []byte {
	var out bytes.Buffer
	for _, line := range b.comments {
		fmt.Fprintln(&out, line)
	}
	for _, name := range slices.Sorted(maps.Keys(b.values)) {
		value := 0
		if b.values[name] {
			value = 1
		}
		fmt.Fprintf(&out, "%s=%d\n", name, value)
	}
	return out.Bytes()
}

// operators gives the values that the operator set, not we.
func (b localBooleans) operators(rec *Record) map[string]bool {
	values := maps.Clone(b.values)
	for _, ours := range rec.Policy.Booleans {
		delete(values, ours)
	}
	return values
}

func readBooleans(root *hostfs.Root, activeDir string) (localBooleans, error) {
	return readBooleansFile(root, activeDir+"/"+booleansFile)
}

func readBooleansFile(root *hostfs.Root, name string) (localBooleans, error) {
	content, err := root.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return localBooleans{}, err
	}
	return parseBooleans(bytes.NewReader(content))
}

// writeBooleans gives the steps that enter the declared booleans into the store and take out those that were declared before; none: the
// file is right. Lines that libsemanage does not take go into quarantine, and what was corrected there comes back. A file that cannot be read is
// an error: it has the operator's booleans, too.
func (c *Compiler) writeBooleans(policyType string, rec *Record, want Declared) (steps plan.Plan, err error) {
	name, aside := active(policyType)+"/"+booleansFile, c.Shelf.path(local+"/"+booleansFile)
	local, err := readBooleans(c.Root, active(policyType))
	if err != nil {
		return nil, fmt.Errorf("cannot read the store's booleans: %w", err)
	}
	shelved, err := readBooleansFile(c.Root, aside)
	if err != nil {
		return nil, fmt.Errorf("cannot read the booleans in quarantine: %w", err)
	}
	old := local.encode()
	for _, was := range rec.Policy.Booleans {
		delete(local.values, was)
	}
	maps.Copy(local.values, rec.Policy.BooleansBefore)
	for name, value := range shelved.values {
		if _, newer := local.values[name]; !newer {
			local.values[name] = value
		}
	}
	maps.Copy(local.values, want.Booleans)
	content := local.encode()
	if len(local.refused) > 0 {
		const reason = "the policy cannot be built with some of its lines"
		steps = append(steps, plan.Step{Action: "set aside", Target: name, Reason: reason, Stays: true, Do: func(context.Context) (string, error) {
			shelved.refused = append(slices.DeleteFunc(shelved.refused, func(line string) bool { return slices.Contains(local.refused, line) }), local.refused...)
			err := c.Root.MkdirAll(path.Dir(aside), 0o700)
			if err == nil {
				err = c.Root.WriteFile(aside, shelved.shelf(), hostfs.Attributes{Mode: 0o600})
			}
			if err != nil {
				return "", fmt.Errorf("cannot put lines of %s into quarantine: %w", booleansFile, err)
			}
			return "as " + c.Root.Path(aside), nil
		}})
	}
	switch {
	case bytes.Equal(old, content) && len(local.refused) == 0:
		return nil, nil
	case len(content) == 0: // an empty file would look like one that a power cut emptied
		return append(steps, plan.Remove(c.Root, name, "no boolean is declared any more")), nil
	}
	attr := hostfs.Attributes{Mode: 0o600, Keep: true}
	return append(steps, plan.Write(c.Root, name, content, attr, "booleans are declared")), nil
}

// shelf gives the text of the file in quarantine: the lines that libsemanage does not take, and those that are not in the store yet.
func (b localBooleans) shelf() []byte {
	return append([]byte(strings.Join(b.refused, "\n")+"\n"), b.encode()...)
}

// releaseBooleans leaves in quarantine the lines alone that libsemanage still does not take, and says what is wrong with each.
func (c *Compiler) releaseBooleans() (out []Quarantined, err error) {
	name := c.Shelf.path(local + "/" + booleansFile)
	shelved, err := readBooleansFile(c.Root, name)
	switch {
	case err != nil:
	case len(shelved.refused) == 0:
		err = c.Root.RemoveTree(name)
	case len(shelved.values) > 0:
		err = c.Root.WriteFile(name, []byte(strings.Join(shelved.refused, "\n")+"\n"), hostfs.Attributes{Mode: 0o600})
	}
	if err != nil {
		return nil, fmt.Errorf("cannot take booleans out of quarantine: %w", err)
	}
	for _, line := range shelved.refused {
		out = append(out, c.inQuarantine(Quarantined{Kind: localFile, Name: booleansFile, From: writtenByHand,
			Reason: "libsemanage does not take the line " + printable.Quote(clip(line)) + ", and builds nothing with it: a line is NAME=1 or NAME=0, and nothing else"}))
	}
	return out, nil
}

// policyBooleans gives the booleans of a binary policy that was just opened, with their values at boot. known is false for a policy of a
// version that this program cannot read: libsemanage and the kernel can, and what they do is not to fail for that.
func policyBooleans(policy io.ReadCloser, err error) (values map[string]bool, known bool, _ error) {
	symbols, err := policydb.ReadSymbols(policy, err)
	var version *policydb.VersionError
	switch {
	case errors.As(err, &version):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return symbols.Booleans(), true, nil
}

// checkBooleans reads the built policy and tells which declared booleans it does not have. One that it has with the wrong value
// is an error: libsemanage did not do what it was asked.
func (c *Compiler) checkBooleans(policyType, file string, want map[string]bool) ([]Quarantined, error) {
	if len(want) == 0 {
		return nil, nil
	}
	built, known, err := policyBooleans(c.Root.OpenFile(c.policyFile(policyType, file)))
	if err != nil {
		return nil, fmt.Errorf("cannot look at the built policy: %w", err)
	}
	if !known {
		return nil, nil
	}
	var missing []Quarantined
	for _, name := range slices.Sorted(maps.Keys(want)) {
		value, found := built[name]
		switch {
		case !found:
			missing = append(missing, Quarantined{Kind: "boolean", Name: name, Reason: "the policy has no such boolean: getsebool -a lists those it has"})
		case value != want[name]:
			return nil, fmt.Errorf("boolean %s is %t in the built policy and not %t as declared", name, value, want[name])
		}
	}
	return missing, nil
}

// bootBooleans gives the booleans that the kernel has with another value than the built policy, among those that the store sets, for
// whomever, and those that were declared before. Loading a policy keeps the values in force, also those of the policy that another
// OS image came with.
func (c *Compiler) bootBooleans(policyType, file string, before []string) (map[string]bool, error) {
	local, err := readBooleans(c.Root, active(policyType))
	if err != nil {
		return nil, fmt.Errorf("cannot read the store's booleans: %w", err)
	}
	built, _, err := policyBooleans(c.Root.OpenFile(c.policyFile(policyType, file)))
	if err != nil {
		return nil, fmt.Errorf("cannot look at the built policy: %w", err)
	}
	wrong := map[string]bool{}
	for _, name := range slices.AppendSeq(slices.Clone(before), maps.Keys(local.values)) {
		value, inPolicy := built[name]
		current, loaded, err := c.Kernel.Boolean(name)
		if err != nil {
			return nil, err
		}
		if inPolicy && loaded && current != value {
			wrong[name] = value
		}
	}
	return wrong, nil
}

// liveBooleans gives the declared booleans that the kernel has with another value. Loading a policy keeps the values in force, so
// a new one must be set once, and somebody may have used setsebool without -P.
func (c *Compiler) liveBooleans(want Declared) (map[string]bool, error) {
	wrong := map[string]bool{}
	if c.Kernel == nil {
		return wrong, nil
	}
	for name, value := range want.Booleans {
		current, found, err := c.Kernel.Boolean(name)
		if err != nil {
			return nil, err
		}
		if found && current != value {
			wrong[name] = value
		}
	}
	return wrong, nil
}

func (c *Compiler) setBooleans(values map[string]bool) plan.Step {
	names := slices.Sorted(maps.Keys(values))
	return plan.Step{
		Action: "switch", Target: "booleans", Reason: "the kernel has other values than declared",
		Do: func(context.Context) (string, error) {
			return strings.Join(names, ", "), c.Kernel.SetBooleans(values)
		},
		Undo: func(context.Context) error {
			back := map[string]bool{}
			for name, value := range values {
				back[name] = !value
			}
			return c.Kernel.SetBooleans(back)
		},
	}
}

// VendorBooleans gives the values that the vendor's policy has for the named booleans; one that it does not have is left out.
func VendorBooleans(root *hostfs.Root, policyType string, names []string) (map[string]bool, error) {
	values := map[string]bool{}
	if len(names) == 0 {
		return values, nil
	}
	vendors, _, err := policyBooleans(seconfig.OpenPolicy(root, VendorEtc(root), policyType))
	for _, name := range names {
		if value, found := vendors[name]; found {
			values[name] = value
		}
	}
	return values, err
}
