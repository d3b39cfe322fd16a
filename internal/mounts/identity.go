package mounts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
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
	// linux/f2fs_fs.h, fs/erofs/erofs_fs.h, uapi/linux/msdos_fs.h, and ECMA-119 8.4. What a label is, where there are two, is blkid's.
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
		if known && err == nil {
			label, err = fatLabel(r, sb)
		}
	case "iso9660":
		sb := read(0x8000, 2048)
		known = string(sb[1:6]) == "CD001"
		uuid = isoUUID(sb)
		if known && err == nil {
			label = isoLabel(r, sb[40:72])
		}
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

// maxDirectory is the largest directory that FAT knows, in bytes (fs/fat/fat.h, FAT_MAX_DIR_SIZE).
const maxDirectory = 2 << 20

// fatLabel gives the label that the root directory of a FAT file system has among its files, as blkid does. The one in its boot sector is another
// (LABEL_FATBOOT): Windows does not write it, and "NO NAME" stays there.
func fatLabel(r io.ReaderAt, sb []byte) (string, error) {
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(sb[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(sb[at:])) }
	sector, cluster, reserved := u16(11), int64(sb[13]), u16(14)
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || cluster == 0 || cluster&(cluster-1) != 0 {
		return "", errors.New("cannot read the superblock: it is not one of vfat")
	}
	if length := u16(22); length != 0 { // FAT12 and FAT16 have room for the root directory behind the FATs
		return labelAmong(r, (reserved+int64(sb[16])*length)*sector, u16(17)*32)
	}
	length, data := u32(36), reserved+int64(sb[16])*u32(36)
	size := cluster * sector
	left := int64(maxDirectory)
	for next := u32(44); next >= 2 && next < length*sector/4 && left > 0; left -= size {
		if label, err := labelAmong(r, (data+(next-2)*cluster)*sector, size); label != "" || err != nil {
			return label, err
		}
		var entry [4]byte
		if _, err := r.ReadAt(entry[:], reserved*sector+4*next); err != nil {
			return "", fmt.Errorf("cannot read where the root directory goes on: %w", err)
		}
		next = int64(binary.LittleEndian.Uint32(entry[:]) & 0x0fffffff)
	}
	return "", nil
}

// labelAmong looks for the label among the entries of a part of a directory.
func labelAmong(r io.ReaderAt, at, size int64) (label string, err error) {
	const (
		free, kanji           = 0xe5, 0x05
		isLabel, isDir        = 0x08, 0x10
		attributes, nameParts = 0x3f, 0x0f
	)
	b := make([]byte, min(size, 32<<10))
	for ; size > 0; size, at = size-int64(len(b)), at+int64(len(b)) {
		b = b[:min(size, int64(len(b)))]
		if n, err := r.ReadAt(b, at); n < len(b) {
			return "", fmt.Errorf("cannot read the root directory: %w", err)
		}
		for e := b; len(e) >= 32; e = e[32:] {
			switch starts := e[20] | e[21] | e[26] | e[27]; {
			case e[0] == 0:
				return "", nil
			case e[0] == free, starts != 0, e[11]&attributes == nameParts, e[11]&(isLabel|isDir) != isLabel:
				continue
			case e[0] == kanji:
				return strings.TrimSpace(text(append([]byte{free}, e[1:11]...))), nil
			}
			return strings.TrimSpace(text(e[:11])), nil
		}
	}
	return "", nil
}

// isoLabel gives the label of a disc: that of Joliet, if it has one, whose room is half as much; so what the primary descriptor has more of the
// same label is put behind it (blkid, merge_utf16be_ascii).
func isoLabel(r io.ReaderAt, primary []byte) string {
	const descriptors, size = 16, 2048
	b := make([]byte, size)
	for i := range int64(descriptors) {
		if n, _ := r.ReadAt(b, 0x8000+size*(i+1)); n < size || b[0] == 255 || string(b[1:6]) != "CD001" {
			break
		}
		if escape := string(b[88:91]); b[0] != 2 || escape != "%/@" && escape != "%/C" && escape != "%/E" {
			continue
		}
		var units []uint16
		for at := 40; at < 72; at += 2 {
			units = append(units, binary.BigEndian.Uint16(b[at:]))
		}
		return strings.TrimSpace(decoded(append(units, longer(units, primary)...)))
	}
	return strings.TrimSpace(text(primary))
}

// longer gives what the label of the primary descriptor has behind that of Joliet, nil if they are not the same so far: but for the case, and
// for what is no ASCII and an underscore there.
func longer(units []uint16, primary []byte) (rest []uint16) {
	at := 0
	for i := 0; i < len(units); i++ {
		if utf16.IsSurrogate(rune(units[i])) && i+1 < len(units) && utf16.DecodeRune(rune(units[i]), rune(units[i+1])) != utf8.RuneError {
			i++
		} else if c := units[i]; primary[at] != '_' && (c >= utf8.RuneSelf || !strings.EqualFold(string(rune(c)), string(rune(primary[at])))) {
			return nil
		}
		at++
	}
	for _, c := range primary[at:] {
		rest = append(rest, uint16(c))
	}
	return rest
}

// text is a name that a zero byte ends. What is not UTF-8 stays as it is: nobody can ask for it in a config.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

func wide(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return decoded(units)
}

// decoded gives a name in UTF-16 that a zero ends.
func decoded(units []uint16) string {
	if end := slices.Index(units, 0); end >= 0 {
		units = units[:end]
	}
	return string(utf16.Decode(units))
}

func formatUUID(b []byte) string {
	if bytes.Count(b, []byte{0}) == len(b) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
