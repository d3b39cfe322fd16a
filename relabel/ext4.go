package relabel

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// extent is a part of a device, in bytes.
type extent struct{ start, length int64 }

// ext4 is what reading ahead needs to know of a file system: where its inode tables are, as far as they are used. The format is in the
// kernel's documentation, filesystems/ext4; numbers are little-endian.
type ext4 struct {
	block  int64 // bytes
	inode  int64 // bytes
	size   int64 // of the device
	tables []extent
}

const (
	ext4Magic        = 0xef53
	ext4MetaBlocks   = 0x10 // incompat: the group descriptors are not in one place
	ext4Wide         = 0x80 // incompat: 64-bit group descriptors
	ext4Checksums    = 0x410
	ext4NoInodes     = 0x1 // of a group: its inode table was never used
	ext4Extents      = 0x80000
	ext4Inline       = 0x10000000
	ext4ExtentMagic  = 0xf30a
	ext4ExtentDepth  = 5
	mostDescriptions = 64 << 20 // bytes of group descriptors: 128 TiB with the usual groups
)

var errNotExt4 = errors.New("not an ext4 whose inode tables could be found")

// readExt4 reads the superblock and the group descriptors.
func readExt4(device io.ReaderAt, size int64) (*ext4, error) {
	super := make([]byte, 1024)
	if _, err := device.ReadAt(super, 1024); err != nil {
		return nil, err
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(super[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(super[at:])) }
	shift, perGroup, inodes := u32(24), u32(32), u32(40)
	incompat, readOnly := u32(96), u32(100)
	if u16(56) != ext4Magic || shift > 6 || perGroup == 0 || inodes == 0 || incompat&ext4MetaBlocks != 0 {
		return nil, errNotExt4
	}
	fs := &ext4{block: 1024 << shift, inode: u16(88), size: size}
	if fs.inode < 128 || fs.inode > fs.block || fs.inode&(fs.inode-1) != 0 {
		return nil, errNotExt4
	}
	description, blocks := int64(32), u32(4)
	if incompat&ext4Wide != 0 {
		description = u16(254)
		blocks |= u32(0x150) << 32
	}
	first := u32(20)
	if description < 32 || description > 1024 || blocks <= first || blocks > size/fs.block+1 {
		return nil, errNotExt4
	}
	groups := (blocks - first + perGroup - 1) / perGroup
	if groups*description > mostDescriptions {
		return nil, errNotExt4
	}
	table := make([]byte, groups*description)
	if _, err := device.ReadAt(table, (first+1)*fs.block); err != nil {
		return nil, err
	}
	for g := range groups {
		d := table[g*description:][:description]
		at := int64(binary.LittleEndian.Uint32(d[8:]))
		unused := int64(0)
		if readOnly&ext4Checksums != 0 {
			if binary.LittleEndian.Uint16(d[18:])&ext4NoInodes != 0 {
				continue
			}
			unused = int64(binary.LittleEndian.Uint16(d[28:]))
		}
		if description >= 64 {
			at |= int64(binary.LittleEndian.Uint32(d[40:])) << 32
			if readOnly&ext4Checksums != 0 {
				unused |= int64(binary.LittleEndian.Uint16(d[50:])) << 16
			}
		}
		if used := (inodes - unused) * fs.inode; used > 0 {
			fs.add(&fs.tables, at, used)
		}
	}
	return fs, nil
}

// add appends what begins at a block, if it is on the device.
func (fs *ext4) add(to *[]extent, block, length int64) {
	if block > 0 && block < fs.size/fs.block && length > 0 && block*fs.block+length <= fs.size {
		*to = append(*to, extent{block * fs.block, length})
	}
}

// directories looks through the inode tables for directories and gives where their blocks are. Trees of extents are asked for with want
// before they are read.
func (fs *ext4) directories(device io.ReaderAt, stopped func() bool, want func(extent) bool) (found []extent) {
	var trees []extent
	buf := make([]byte, scanSize)
	for _, table := range fs.tables {
		for table.length > 0 && !stopped() && len(found) < mostExtents {
			part := buf[:min(table.length, scanSize)]
			if _, err := device.ReadAt(part, table.start); err != nil {
				break
			}
			for len(part) >= int(fs.inode) {
				fs.directory(part[:fs.inode], &found, &trees)
				part = part[fs.inode:]
			}
			table.start, table.length = table.start+scanSize, table.length-scanSize
		}
	}
	for range ext4ExtentDepth {
		var deeper []extent
		// A damaged or hostile disk may name one node any number of times, also in itself.
		slices.SortFunc(trees, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
		trees = slices.Compact(trees)
		for _, t := range coalesce(slices.Clone(trees), gapSize) {
			want(t)
		}
		for _, t := range trees {
			if stopped() || len(found) >= mostExtents {
				return found
			}
			if _, err := device.ReadAt(buf[:fs.block], t.start); err == nil {
				fs.extents(buf[:fs.block], &found, &deeper)
			}
		}
		if trees = deeper; len(trees) == 0 {
			break
		}
	}
	return found
}

// directory reads one inode.
func (fs *ext4) directory(inode []byte, found, trees *[]extent) {
	const typeMask, typeDirectory = 0xf000, 0x4000
	flags := binary.LittleEndian.Uint32(inode[32:])
	if binary.LittleEndian.Uint16(inode)&typeMask != typeDirectory || binary.LittleEndian.Uint16(inode[26:]) == 0 || flags&ext4Inline != 0 {
		return
	}
	blocks := inode[40:100]
	if flags&ext4Extents != 0 {
		fs.extents(blocks, found, trees)
		return
	}
	for i := range 12 { // the direct blocks of ext3; it has no large directories in practice
		fs.add(found, int64(binary.LittleEndian.Uint32(blocks[4*i:])), fs.block)
	}
}

// extents reads a node of a tree of extents: a header, and entries of 12 bytes.
func (fs *ext4) extents(node []byte, found, trees *[]extent) {
	if binary.LittleEndian.Uint16(node) != ext4ExtentMagic {
		return
	}
	entries, leaf := int(binary.LittleEndian.Uint16(node[2:])), binary.LittleEndian.Uint16(node[6:]) == 0
	for i := 0; i < entries && len(node) >= 12*(i+2) && len(*found) < mostExtents && len(*trees) < mostExtents; i++ {
		e := node[12*(i+1):]
		if leaf {
			length := int64(binary.LittleEndian.Uint16(e[4:]))
			if length > 1<<15 { // not written yet
				continue
			}
			fs.add(found, int64(binary.LittleEndian.Uint32(e[8:]))|int64(binary.LittleEndian.Uint16(e[6:]))<<32, length*fs.block)
		} else {
			fs.add(trees, int64(binary.LittleEndian.Uint32(e[4:]))|int64(binary.LittleEndian.Uint16(e[8:]))<<32, fs.block)
		}
	}
}

// coalesce sorts extents and joins those between which there is a gap of no more than so many bytes.
func coalesce(all []extent, gap int64) (joined []extent) {
	slices.SortFunc(all, func(a, b extent) int { return int(min(max(a.start-b.start, -1), 1)) })
	for _, e := range all {
		if n := len(joined); n > 0 && e.start <= joined[n-1].start+joined[n-1].length+gap {
			joined[n-1].length = max(joined[n-1].length, e.start+e.length-joined[n-1].start)
			continue
		}
		joined = append(joined, e)
	}
	return joined
}
