// Command bpf makes the calls of an agent that is made of BPF, such as Cilium's: it makes a map, writes to it and reads it, loads a program of the kind
// that is attached to network devices, has the kernel run it, and pins both in a file system for BPF.
//
//	bpf DIRECTORY    below /sys/fs/bpf
//
// What it is denied first ends it.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attributes is the union bpf_attr (include/uapi/linux/bpf.h): fields at their offsets, the rest zero.
type attributes struct {
	bytes [128]byte
	keep  []any // what the kernel is given the address of
}

func (a *attributes) number(at int, n uint32) { binary.NativeEndian.PutUint32(a.bytes[at:], n) }

func (a *attributes) address(at int, of []byte) {
	binary.NativeEndian.PutUint64(a.bytes[at:], uint64(uintptr(unsafe.Pointer(&of[0]))))
	a.keep = append(a.keep, of)
}

// call makes the system call, and gives its result.
func (a *attributes) call(command uintptr, what string) int {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(a)
	for _, b := range a.keep {
		pin.Pin(&b.([]byte)[0])
	}
	result, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&a.bytes)), unsafe.Sizeof(a.bytes))
	runtime.KeepAlive(a)
	if errno != 0 {
		fmt.Printf("cannot %s: %v\n", what, errno)
		os.Exit(1)
	}
	fmt.Println(what)
	return int(result)
}

func main() {
	dir := os.Args[1]
	key, value, read := make([]byte, 4), []byte("12345678"), make([]byte, 8)

	create := &attributes{}
	create.number(0, unix.BPF_MAP_TYPE_HASH)
	create.number(4, 4)  // bytes of a key
	create.number(8, 8)  // of a value
	create.number(12, 1) // entries
	table := create.call(unix.BPF_MAP_CREATE, "make a map")
	element := func(value []byte) *attributes {
		a := &attributes{}
		a.number(0, uint32(table))
		a.address(8, key)
		a.address(16, value)
		return a
	}
	element(value).call(unix.BPF_MAP_UPDATE_ELEM, "write to it")
	element(read).call(unix.BPF_MAP_LOOKUP_ELEM, "read it")
	if string(read) != string(value) {
		fmt.Printf("cannot find what was written: %q\n", read)
		os.Exit(1)
	}

	load := &attributes{}
	load.number(0, unix.BPF_PROG_TYPE_SCHED_CLS)
	load.number(4, 2)
	load.address(8, []byte{
		0xb7, 0, 0, 0, 0, 0, 0, 0, // r0 = 0
		0x95, 0, 0, 0, 0, 0, 0, 0, // exit
	})
	load.address(16, []byte("GPL\x00"))
	program := load.call(unix.BPF_PROG_LOAD, "load a program")
	run := &attributes{}
	run.number(0, uint32(program))
	run.number(8, 64) // bytes of the packet
	run.address(16, make([]byte, 64))
	run.call(unix.BPF_PROG_TEST_RUN, "run it")

	for name, fd := range map[string]int{"map": table, "program": program} {
		pin := &attributes{}
		pin.address(0, append([]byte(filepath.Join(dir, name)), 0))
		pin.number(8, uint32(fd))
		pin.call(unix.BPF_OBJ_PIN, "pin the "+name)
	}
}
