package mounts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrUnknownType says that nothing here can read the superblock of this type of file system.
var ErrUnknownType = errors.New("cannot read the superblocks of this type")

// Identity reads the label and the UUID of a file system of the given type from its device, as blkid(8) shows them; "" for what it has
// not. The types are ext2, ext3, ext4, xfs, btrfs, f2fs, vfat, iso9660 and erofs; any other gives ErrUnknownType. Another error says
// that the device could not be read or does not hold that type.
func Identity(r io.ReaderAt, fstype string) (label, uuid string, err error) {
	// The places are those of the kernel's headers: fs/ext4/ext4.h, fs/xfs/libxfs/xfs_format.h, uapi/linux/btrfs_tree.h,
	// linux/f2fs_fs.h, fs/erofs/erofs_fs.h, uapi/linux/msdos_fs.h, and ECMA-119 8.4.
	read := func(at int64, size int) []byte {
		b := make([]byte, size)
		if n, wrong := r.ReadAt(b, at); n < size && err == nil {
			err = fmt.Errorf("cannot read the superblock: %w", wrong)
		}
		return b
	}
	var known bool
	switch fstype {
	case "ext2", "ext3", "ext4":
		sb := read(1024, 256)
		known = binary.LittleEndian.Uint16(sb[0x38:]) == 0xEF53
		label, uuid = text(sb[0x78:0x88]), formatUUID(sb[0x68:0x78])
	case "xfs":
		sb := read(0, 256)
		known = string(sb[:4]) == "XFSB"
		label, uuid = text(sb[108:120]), formatUUID(sb[32:48])
	case "btrfs":
		sb := read(0x10000, 0x400)
		known = string(sb[0x40:0x48]) == "_BHRfS_M"
		label, uuid = text(sb[0x12b:0x22b]), formatUUID(sb[0x20:0x30])
	case "f2fs":
		sb := read(1024, 0x27c)
		known = binary.LittleEndian.Uint32(sb) == 0xF2F52010
		label, uuid = wide(sb[0x7c:0x27c]), formatUUID(sb[0x6c:0x7c])
	case "erofs":
		sb := read(1024, 128)
		known = binary.LittleEndian.Uint32(sb) == 0xE0F5E1E2
		label, uuid = text(sb[64:80]), formatUUID(sb[48:64])
	case "vfat", "msdos":
		sb := read(0, 512)
		known = sb[510] == 0x55 && sb[511] == 0xAA
		// FAT32 has its sectors per FAT where the others have none, and what follows further back.
		at := 39
		if binary.LittleEndian.Uint16(sb[22:]) == 0 {
			at = 67
		}
		uuid = fmt.Sprintf("%02X%02X-%02X%02X", sb[at+3], sb[at+2], sb[at+1], sb[at])
		label = strings.TrimRight(text(sb[at+4:at+15]), " ")
		if label == "NO NAME" {
			label = ""
		}
	case "iso9660":
		sb := read(0x8000, 2048)
		known = string(sb[1:6]) == "CD001"
		label = strings.TrimRight(text(sb[40:72]), " ")
		uuid = isoUUID(sb)
	default:
		return "", "", ErrUnknownType
	}
	switch {
	case err != nil:
		return "", "", err
	case !known:
		return "", "", errors.New("cannot read the superblock: it is not one of " + fstype)
	}
	return label, uuid, nil
}

// isoUUID is what blkid makes of the time of the last change, or that of the making: YYYY-MM-DD-hh-mm-ss-cc.
func isoUUID(sb []byte) string {
	for _, at := range []int{830, 813} {
		d := sb[at : at+16]
		if bytes.ContainsFunc(d, func(r rune) bool { return r < '0' || r > '9' }) || bytes.Count(d, []byte("0")) == len(d) {
			continue
		}
		return fmt.Sprintf("%s-%s-%s-%s-%s-%s-%s", d[0:4], d[4:6], d[6:8], d[8:10], d[10:12], d[12:14], d[14:16])
	}
	return ""
}

// text is a name that a zero byte ends. What is not UTF-8 stays as it is: nobody can ask for it in a config.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

func wide(b []byte) string {
	var units []uint16
	for ; len(b) >= 2 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	var out []byte
	for _, r := range utf16.Decode(units) {
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

func formatUUID(b []byte) string {
	if bytes.Count(b, []byte{0}) == len(b) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
