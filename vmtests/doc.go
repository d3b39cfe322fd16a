// Package vmtests runs selinux-provision on a Flatcar-shaped machine in QEMU.
//
// Build makes the images, Boot starts a machine from them, and a Machine is driven through a root shell, snapshots and power cuts.
// Every machine that a test starts is judged at the end: its console and its journal must be clean. README.md lists how the machine
// differs from a real Flatcar.
package vmtests
