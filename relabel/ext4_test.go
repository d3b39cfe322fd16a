package relabel

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// counting counts how often a disk is read.
type counting struct {
	io.ReaderAt
	reads int
}

func (c *counting) ReadAt(p []byte, at int64) (int, error) {
	c.reads++
	return c.ReaderAt.ReadAt(p, at)
}

// A hostile disk, each directory of which names one node of a tree of extents that names itself, costs no more than its blocks.
func TestExtentsThatNameThemselves(t *testing.T) {
	const block, inodes = 1024, 512
	disk := make([]byte, 128*block)
	super := disk[1024:]
	binary.LittleEndian.PutUint16(super[56:], ext4Magic)
	binary.LittleEndian.PutUint32(super[4:], 128) // blocks
	binary.LittleEndian.PutUint32(super[20:], 1)
	binary.LittleEndian.PutUint32(super[32:], 128)
	binary.LittleEndian.PutUint32(super[40:], inodes)
	binary.LittleEndian.PutUint16(super[88:], 128)
	binary.LittleEndian.PutUint32(disk[2*block+8:], 4)
	index := func(to []byte, entries int) { // each entry names block 100
		binary.LittleEndian.PutUint16(to, ext4ExtentMagic)
		binary.LittleEndian.PutUint16(to[2:], uint16(entries))
		binary.LittleEndian.PutUint16(to[6:], 1)
		for i := range entries {
			binary.LittleEndian.PutUint32(to[12*(i+1)+4:], 100)
		}
	}
	for i := range inodes {
		inode := disk[4*block+128*i:][:128]
		binary.LittleEndian.PutUint16(inode, 0x4000)
		binary.LittleEndian.PutUint16(inode[26:], 2)
		binary.LittleEndian.PutUint32(inode[32:], ext4Extents)
		index(inode[40:100], 4)
	}
	index(disk[100*block:][:block], block/12-1)
	device := &counting{ReaderAt: bytes.NewReader(disk)}
	fs, err := readExt4(device, int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	device.reads = 0
	asked := 0
	fs.directories(device, func() bool { return false }, func(extent) bool { asked++; return true })
	if asked != ext4ExtentDepth || device.reads != 1+ext4ExtentDepth {
		t.Errorf("%d reads, %d wanted: one of the table, and one of the node at each of %d levels", device.reads, asked, ext4ExtentDepth)
	}
}
