// Command attacker does to a volume what somebody hostile would while it is labelled, in a test of those who label it:
//
//	attacker storm VOLUME VICTIM...   make, move, link, swap and mount, as fast as it can, until SIGTERM; the victims are directories outside
//	attacker names VOLUME             files with names that a terminal or a parser would obey, which nobody can label
//	attacker corrupt IMAGE            garbage in place of the inodes of an ext4 or xfs, but for its first ones
//
// Do not use it on a machine that you need.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 2 && args[0] == "storm":
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		return storm(ctx, args[1], args[2:])
	case len(args) == 2 && args[0] == "names":
		return plantNames(args[1])
	case len(args) == 2 && args[0] == "corrupt":
		return corrupt(args[1])
	}
	return errors.New("cannot attack: say storm, names or corrupt, and what")
}

// hostileNames are names that a terminal, a journal, JSON, a metric or a shell would take for something else.
func hostileNames() []string {
	return []string{
		"line\nfeed", "\x1b[2J\x1b]0;title\x07", "carriage\rreturn", "tab\there", "\u202egnp.exe", "\xff\xfe", "\x7f\x08\x08",
		`","context":"x`, `{label="x"} 1`, "-rf", " ", "$(reboot)", "<6>Jan 1", "\x1f\x1e", "\u2028",
	}
}

// storm attacks until the context ends, with one thread for each kind. What fails does not matter: others undo what one has just done.
func storm(ctx context.Context, volume string, victims []string) error {
	var hands sync.WaitGroup
	for i, hand := range []func(*rand.Rand, string, string){maker, mover, swapper, noder, linker, binder} {
		hands.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for ctx.Err() == nil {
				hand(random, volume, victims[random.IntN(len(victims))])
			}
		})
	}
	hands.Wait()
	_ = unix.Unmount(filepath.Join(volume, "bind"), unix.MNT_DETACH)
	return os.RemoveAll(filepath.Join(volume, "links"))
}

// place is one of the directories in which makers make and between which movers move.
func place(random *rand.Rand, volume string) string {
	return filepath.Join(volume, "work", strconv.Itoa(random.IntN(8)), strconv.Itoa(random.IntN(8)))
}

func maker(random *rand.Rand, volume, _ string) {
	dir := place(random, volume)
	_ = os.MkdirAll(dir, 0o755)
	names := hostileNames()
	name := filepath.Join(dir, names[random.IntN(len(names))]+strconv.Itoa(random.IntN(4)))
	if random.IntN(3) == 0 {
		_ = os.Remove(name)
	} else {
		_ = os.WriteFile(name, []byte("x"), 0o644)
	}
}

func mover(random *rand.Rand, volume, _ string) {
	_ = os.Rename(place(random, volume), place(random, volume)+"/moved")
	from := place(random, volume)
	_ = os.Rename(from+"/moved", from+strconv.Itoa(random.IntN(100)))
}

// swapper exchanges a directory for a link that leads out of the volume.
func swapper(_ *rand.Rand, volume, victim string) {
	dir, link := filepath.Join(volume, "swap/dir"), filepath.Join(volume, "swap/link")
	_ = os.MkdirAll(dir, 0o755)
	_ = os.WriteFile(filepath.Join(dir, "secret"), nil, 0o644)
	_ = os.Symlink(victim, link)
	_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
	_ = os.Remove(link) // if it is the link
}

// noder exchanges a file for a device of the host, a pipe, or a socket.
func noder(random *rand.Rand, volume, victim string) {
	file, node := filepath.Join(volume, "nodes/file"), filepath.Join(volume, "nodes/node")
	_ = os.MkdirAll(filepath.Dir(file), 0o755)
	if f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err == nil { // a pipe there would be waited for
		f.Close()
	}
	_ = os.Remove(node)
	var disk unix.Stat_t
	_ = unix.Stat(victim, &disk)
	switch random.IntN(4) {
	case 0:
		_ = unix.Mknod(node, unix.S_IFBLK|0o600, int(disk.Dev))
	case 1:
		_ = unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	case 2:
		_ = unix.Mkfifo(node, 0o600)
	case 3:
		_ = unix.Mknod(node, unix.S_IFSOCK|0o600, 0)
	}
	_ = unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, node, unix.RENAME_EXCHANGE)
}

// linker gives a victim's file a second name in the volume, where both are on one file system.
func linker(random *rand.Rand, volume, victim string) {
	dir := filepath.Join(volume, "links")
	_ = os.MkdirAll(dir, 0o755)
	name := filepath.Join(dir, strconv.Itoa(random.IntN(50)))
	if os.Link(filepath.Join(victim, "secret"), name) != nil {
		_ = os.WriteFile(name, nil, 0o644)
	}
	_ = os.Remove(filepath.Join(dir, strconv.Itoa(random.IntN(50))))
}

// binder mounts a victim into the volume.
func binder(_ *rand.Rand, volume, victim string) {
	at := filepath.Join(volume, "bind")
	_ = os.MkdirAll(at, 0o755)
	_ = unix.Mount(victim, at, "", unix.MS_BIND, "")
	time.Sleep(time.Millisecond)
	_ = unix.Unmount(at, unix.MNT_DETACH)
}

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// plantNames makes a file of each name that has to be said when it is not labelled: it is immutable.
func plantNames(volume string) error {
	for _, name := range hostileNames() {
		dir := filepath.Join(volume, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("cannot make %q immutable: %w", name, err)
		}
	}
	return nil
}

// corrupt overwrites inodes in the image of a file system that nobody has mounted.
func corrupt(image string) error {
	content, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	var inodes [][]byte
	switch {
	case bytes.HasPrefix(content, []byte("XFSB")): // an inode begins with its magic, at 512 bytes; 64 are in a chunk, the root in the first
		for at := 0; at+512 <= len(content); at += 512 {
			if string(content[at:at+2]) == "IN" {
				inodes = append(inodes, content[at:at+512])
			}
		}
		inodes = inodes[min(64, len(inodes)):]
	default: // ext4: the table's block is in the first group descriptor, behind the superblock's block; the first twelve are the file system's own
		super := content[1024:2048]
		if binary.LittleEndian.Uint16(super[56:]) != 0xef53 {
			return errors.New("neither ext4 nor xfs: " + image)
		}
		block, size := 1024<<binary.LittleEndian.Uint32(super[24:]), int(binary.LittleEndian.Uint16(super[88:]))
		groups := max(2048, block)
		table := int(binary.LittleEndian.Uint32(content[groups+8:])) * block
		for n := 12; n < int(binary.LittleEndian.Uint32(super[40:])); n++ {
			inodes = append(inodes, content[table+n*size:table+(n+1)*size])
		}
	}
	if len(inodes) == 0 {
		return errors.New("no inodes to corrupt in " + image)
	}
	random := rand.NewChaCha8([32]byte{1})
	for n, inode := range inodes {
		if n%2 == 0 && !bytes.Equal(inode, make([]byte, len(inode))) {
			_, _ = random.Read(inode[2:]) // with the magic of an xfs, so that more than that is looked at
		}
	}
	return os.WriteFile(image, content, 0o600)
}
