package policydb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// maxSize bounds a policy. Flatcar's has some 3 MB, Fedora's 9 MB.
const maxSize = 64 << 20

// Versions of the binary form at which something was added (security/selinux/include/security.h).
const (
	oldest          = 26 // older ones need forms of rules that no supported release has
	newest          = 35
	versionNewObj   = 27
	versionDefType  = 28
	versionNames    = 29
	versionCompact  = 33 // file name transitions in groups
	versionNoAudit  = 35
	symbolTables    = 8
	booleanTable    = 5
	maxElements     = 1 << 24
	propertyPrimary = 1
	propertyAttr    = 2
	// firstPart is where symbols are looked for first: those of Debian's policy, which has several times Flatcar's modules, take 350 KB.
	firstPart = 512 << 10
)

var errShort = errors.New("it ends in the middle")

// reader walks through the bytes of a policy. After the first error it gives zeros.
type reader struct {
	left []byte
	err  error
	vers uint32
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.left = nil
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.left)) {
		r.fail(errShort)
		return nil
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) skip(words uint32) { r.bytes(4 * words) }

func (r *reader) text(n uint32) string { return string(r.bytes(n)) }

// count reads a number of elements of which each takes at least size bytes, so that no number makes a loop run long.
func (r *reader) count(size int) int {
	n := r.u32()
	if n > maxElements || int(n)*size > len(r.left) {
		r.fail(errShort)
		return 0
	}
	return int(n)
}

// bitmap is a set of small numbers, as the kernel's ebitmap.
type bitmap []node

type node struct {
	start uint32
	bits  uint64
}

func (r *reader) bitmap() bitmap {
	if unit := r.u32(); unit != 64 && r.err == nil {
		r.fail(fmt.Errorf("a bitmap has units of %d bits and not of 64", unit))
	}
	r.u32() // the highest bit
	n := r.count(12)
	if n == 0 {
		return nil
	}
	set := make(bitmap, n)
	for i := range set {
		set[i] = node{r.u32(), r.u64()}
	}
	return set
}

func (b bitmap) has(bit uint32) bool {
	for _, n := range b {
		if bit >= n.start && bit < n.start+64 {
			return n.bits>>(bit-n.start)&1 == 1
		}
	}
	return false
}

// each calls do with each member; members beyond limit are none.
func (b bitmap) each(limit int, do func(bit uint32)) {
	for _, n := range b {
		for rest := n.bits; rest != 0; rest &= rest - 1 {
			if bit := uint64(n.start) + uint64(bits.TrailingZeros64(rest)); bit < uint64(limit) {
				do(uint32(bit))
			}
		}
	}
}

// contains tells whether b has all of other.
func (b bitmap) contains(other bitmap) bool {
	for _, n := range other {
		for rest := n.bits; rest != 0; rest &= rest - 1 {
			if !b.has(n.start + uint32(bits.TrailingZeros64(rest))) {
				return false
			}
		}
	}
	return true
}

// Read is Parse for a policy that was just opened, or could not be; it is closed.
func Read(in io.ReadCloser, err error) (*Policy, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was only read
	return Parse(in)
}

// Parse reads the binary policy that the kernel loads, of version 26 to 35. The error is a *FormError if the policy is the reason.
//
// The form is that of policydb_read in the kernel's security/selinux/ss/policydb.c. Numbers are little-endian; types, classes,
// roles, users and booleans are numbered from 1.
func Parse(in io.Reader) (*Policy, error) {
	content, err := io.ReadAll(io.LimitReader(in, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	if len(content) > maxSize {
		return nil, fmt.Errorf("cannot read the policy: %w", &FormError{errors.New("it is larger than 64 MB")})
	}
	p, err := parse(&reader{left: content})
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", &FormError{err})
	}
	return p, nil
}

func parse(r *reader) (*Policy, error) {
	symbols, contexts, err := r.symbols()
	if err != nil {
		return nil, err
	}
	p := &Policy{Symbols: *symbols}
	p.rules = r.rules(nil)
	p.conditionals(r)
	r.transitions()
	p.ocontexts(r, contexts)
	r.genfs()
	r.ranges()
	p.attributeMap(r)
	if r.err != nil {
		return nil, r.err
	}
	return p, p.index()
}

// ReadSymbols is ParseSymbols for a policy that was just opened, or could not be; it is closed.
func ReadSymbols(in io.ReadCloser, err error) (*Symbols, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was only read
	return ParseSymbols(in)
}

// ParseSymbols reads the symbols alone, which are a sixth of a policy: what comes behind them may be damaged. The error is a *FormError if the policy
// is the reason; within it, a *VersionError says that its version is not known.
func ParseSymbols(in io.Reader) (*Symbols, error) {
	var content bytes.Buffer
	for part := firstPart; ; part *= 2 {
		more := part - content.Len()
		content.Grow(more + bytes.MinRead) // which is what the buffer would have left at the end of each read
		n, err := io.CopyN(&content, in, int64(more))
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("cannot read the policy: %w", err)
		}
		symbols, _, err := (&reader{left: content.Bytes()}).symbols()
		if err == nil {
			return symbols, nil
		}
		// Whatever is wrong may be so because the part is too short, and not the policy.
		var version *VersionError
		if n == 0 || content.Len() > maxSize || errors.As(err, &version) {
			return nil, fmt.Errorf("cannot read the symbols of the policy: %w", &FormError{err})
		}
	}
}

// symbols reads what stands before the rules, and how many kinds of contexts come behind them.
func (r *reader) symbols() (p *Symbols, contexts int, err error) {
	p = &Symbols{typeByName: map[string]uint16{}, classByName: map[string]uint16{}, boolByName: map[string]uint32{}}
	contexts, permissive, err := p.begin(r)
	if err != nil {
		return nil, 0, err
	}
	p.tables(r)
	// Unlike the bits of other sets of types, these are numbered from 1 (security/selinux/ss/services.c, context_struct_compute_av).
	permissive.each(len(p.types)+1, func(value uint32) {
		if value > 0 {
			p.types[value-1].permissive = true
		}
	})
	return p, contexts, r.err
}

// begin reads what stands before the symbols: how many kinds of contexts there are, and the types that are permissive.
func (p *Symbols) begin(r *reader) (contexts int, permissive bitmap, err error) {
	head, err := r.header()
	if err != nil {
		return 0, nil, err
	}
	p.Version, r.vers = head.Version, uint32(head.Version)
	if r.vers < oldest || r.vers > newest {
		return 0, nil, &VersionError{head.Version}
	}
	if !head.MLS {
		return 0, nil, errors.New("it is one without levels and categories")
	}
	if n := r.u32(); n != symbolTables && r.err == nil {
		return 0, nil, fmt.Errorf("it has %d tables of symbols and not %d", n, symbolTables)
	}
	contexts = r.count(0)
	r.bitmap() // capabilities of the policy
	permissive = r.bitmap()
	if r.vers >= versionNoAudit {
		r.bitmap()
	}
	return contexts, permissive, r.err
}

// tables reads the symbols themselves.
func (p *Symbols) tables(r *reader) {
	commons := map[string][]string{}
	for table := range symbolTables {
		primary := r.count(0)
		n := r.count(8)
		switch table {
		case 1:
			p.classes = make([]class, min(primary, len(r.left)))
		case 3:
			p.types = make([]typeInfo, min(primary, len(r.left)))
			p.typeByName = make(map[string]uint16, n)
		case 2:
			p.roles = make([]role, min(primary, len(r.left)))
		case 4:
			p.users = make([]user, min(primary, len(r.left)))
		case booleanTable:
			p.booleans = make([]boolean, min(primary, len(r.left)))
		}
		for range n {
			switch table {
			case 0:
				name, perms := r.common()
				commons[name] = perms
			case 1:
				p.readClass(r, commons)
			case 2:
				length, value := r.u32(), r.u32()
				r.skip(1)
				name := r.text(length)
				r.bitmap()
				put(r, p.roles, value, role{name, r.bitmap()})
			case 3:
				p.readType(r)
			case 4:
				length, value := r.u32(), r.u32()
				r.skip(1)
				u := user{name: r.text(length), roles: r.bitmap()}
				u.low, u.high = r.levelRange()
				put(r, p.users, value, u)
				r.level()
			case booleanTable:
				value, state, length := r.u32(), r.u32(), r.u32()
				name := r.text(length)
				put(r, p.booleans, value, boolean{name, state != 0})
				p.boolByName[name] = value
			case 6:
				length := r.u32()
				alias := r.u32()
				name := r.text(length)
				if level := r.level(); alias == 0 {
					p.sensitivities = append(p.sensitivities, sensitivity{name, level.sens})
				}
			case 7:
				length, value, alias := r.u32(), r.u32(), r.u32()
				if name := r.text(length); alias == 0 {
					p.categories = append(p.categories, category{name, value})
				}
			}
			if r.err != nil {
				return
			}
		}
	}
}

func (p *Symbols) readClass(r *reader, commons map[string][]string) {
	length, commonLength, value := r.u32(), r.u32(), r.u32()
	r.skip(1)
	n, constraints := r.count(8), r.count(8)
	c := class{name: r.text(length)}
	if commonLength > 0 {
		c.perms = append(c.perms, commons[r.text(commonLength)]...)
	}
	c.perms = r.permissions(n, c.perms)
	c.constraints = r.constraints(constraints)
	r.constraints(r.count(8)) // validatetrans
	if r.vers >= versionNewObj {
		r.skip(3)
	}
	if r.vers >= versionDefType {
		r.skip(1)
	}
	put(r, p.classes, value, c)
	p.classByName[c.name] = uint16(value)
}

func (p *Symbols) readType(r *reader) {
	length, value, properties, bounds := r.u32(), r.u32(), r.u32(), r.u32()
	name := r.text(length)
	p.typeByName[name] = uint16(value)
	if value == 0 || uint64(value) > uint64(len(p.types)) || value > 1<<16-1 {
		r.fail(fmt.Errorf("type %s has number %d of %d", printable.Quote(name), value, len(p.types)))
		return
	}
	t := &p.types[value-1]
	if properties&(propertyPrimary|propertyAttr) == 0 {
		t.aliases = append(t.aliases, name)
		return
	}
	t.name, t.attribute = name, properties&propertyAttr != 0
	if bounds > uint32(len(p.types)) {
		r.fail(fmt.Errorf("type %s is bounded by number %d of %d", printable.Quote(name), bounds, len(p.types)))
		return
	}
	t.bounds = uint16(bounds)
}

// put fills the place of a value counted from 1.
func put[T any](r *reader, table []T, value uint32, what T) {
	if value == 0 || uint64(value) > uint64(len(table)) {
		r.fail(fmt.Errorf("a symbol has number %d of %d", value, len(table)))
		return
	}
	table[value-1] = what
}

func (r *reader) permissions(n int, perms []string) []string {
	for range n {
		length, value := r.u32(), r.u32()
		name := r.text(length)
		if value == 0 || value > 32 {
			r.fail(fmt.Errorf("a permission has number %d", value))
			return perms
		}
		for len(perms) < int(value) {
			perms = append(perms, "")
		}
		perms[value-1] = name
	}
	return perms
}

func (r *reader) common() (string, []string) {
	length := r.u32()
	r.skip(2)
	n := r.count(8)
	name := r.text(length)
	return name, r.permissions(n, nil)
}

func (r *reader) constraints(n int) []constraint {
	all := make([]constraint, 0, n)
	for range n {
		c := constraint{perms: r.u32()}
		for range r.count(12) {
			e := expression{kind: r.u32(), attr: r.u32(), op: r.u32()}
			if e.kind == exprNames {
				e.names = r.bitmap()
				if r.vers >= versionNames {
					r.bitmap()
					r.bitmap()
					r.skip(1)
				}
			}
			c.expr = append(c.expr, e)
		}
		all = append(all, c)
	}
	return all
}

// level is one sensitivity with categories.
type level struct {
	sens uint32
	cats bitmap
}

func (r *reader) level() level { return level{r.u32(), r.bitmap()} }

// levelRange reads a low and, if it differs, a high level.
func (r *reader) levelRange() (low, high level) {
	items := r.u32()
	low.sens = r.u32()
	if high.sens = low.sens; items > 1 {
		high.sens = r.u32()
	}
	low.cats = r.bitmap()
	if high.cats = low.cats; items > 1 {
		high.cats = r.bitmap()
	}
	return low, high
}

// rules reads a table of access vectors.
func (r *reader) rules(into []rule) []rule {
	n := r.count(12)
	if into == nil {
		into = make([]rule, 0, n)
	}
	for range n {
		a := rule{source: r.u16(), target: r.u16(), class: r.u16(), kind: r.u16() &^ 0x8000}
		if a.kind&ruleXperms != 0 {
			b := r.bytes(2)
			if b == nil {
				return into
			}
			x := &xperms{kind: b[0], driver: b[1]}
			for i := range x.perms {
				x.perms[i] = r.u32()
			}
			a.x = x
		} else {
			a.data = r.u32()
		}
		into = append(into, a)
	}
	return into
}

func (p *Policy) conditionals(r *reader) {
	for range r.count(16) {
		c := conditional{}
		r.skip(1) // the state; what the booleans say is asked for anew
		for range r.count(8) {
			c.expr = append(c.expr, condStep{r.u32(), r.u32()})
		}
		c.whenTrue = r.rules(nil)
		c.whenFalse = r.rules(nil)
		p.conds = append(p.conds, c)
	}
}

func (r *reader) transitions() {
	r.skip(4 * uint32(r.count(16))) // of roles, with the class since version 26
	r.skip(2 * uint32(r.count(8)))  // allowed between roles
	for range r.count(20) {
		r.bytes(r.u32())
		if r.vers < versionCompact {
			r.skip(4)
			continue
		}
		r.skip(2)
		for range r.count(16) {
			r.bitmap()
			r.skip(1)
		}
	}
}

func (r *reader) context() (typ uint32) {
	r.skip(2)
	typ = r.u32()
	r.levelRange()
	return typ
}

const sidUnlabeled = 3

func (p *Policy) ocontexts(r *reader, kinds int) {
	for kind := range kinds {
		if kind > 8 && r.err == nil {
			r.fail(fmt.Errorf("it has %d kinds of contexts", kinds))
		}
		for range r.count(16) {
			switch kind {
			case 0:
				sid := r.u32()
				if typ := r.context(); sid == sidUnlabeled {
					p.unlabeled = uint16(typ)
				}
			case 1, 3: // old file systems, network interfaces
				r.bytes(r.u32())
				r.context()
				r.context()
			case 2: // ports
				r.skip(3)
				r.context()
			case 4: // IPv4
				r.skip(2)
				r.context()
			case 5: // fs_use
				behaviour, length := r.u32(), r.u32()
				name := r.text(length)
				p.fsUse = append(p.fsUse, fsUse{strings.Clone(name), behaviour, uint16(r.context())})
			case 6: // IPv6
				r.skip(8)
				r.context()
			case 7: // InfiniBand
				r.skip(4)
				r.context()
			case 8:
				length := r.u32()
				r.skip(1)
				r.bytes(length)
				r.context()
			}
			if r.err != nil {
				return
			}
		}
	}
}

func (r *reader) genfs() {
	for range r.count(8) {
		r.bytes(r.u32())
		for range r.count(16) {
			r.bytes(r.u32())
			r.skip(1)
			r.context()
		}
	}
}

func (r *reader) ranges() {
	for range r.count(20) {
		r.skip(3)
		r.levelRange()
	}
}

func (p *Policy) attributeMap(r *reader) {
	for i := range p.types {
		p.types[i].sets = r.bitmap()
		if r.err != nil {
			return
		}
	}
}
