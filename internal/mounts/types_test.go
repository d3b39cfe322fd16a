package mounts

import (
	"slices"
	"testing"
)

func TestTypes(t *testing.T) {
	for fsType, want := range map[string][]string{
		"ext4": {"ext4"}, "nfs": {"nfs"}, "nfs4": {"nfs4", "nfs"}, "fuse": {"fuse"}, "fuse.sshfs": {"fuse.sshfs", "fuse", "sshfs"},
		"fuse.": {"fuse.", "fuse"}, "ntfs.x": {"ntfs.x", "ntfs"}, "": {""},
	} {
		if got := TypeNames(fsType); !slices.Equal(got, want) {
			t.Errorf("%s: %v", fsType, got)
		}
	}
	for _, c := range []struct{ fsType, options, want string }{
		{"nfs", "", "nfs"}, {"nfs", "rw,vers=4.2", "nfs4"}, {"nfs", "nfsvers=4", "nfs4"}, {"nfs", "v4", "nfs4"}, {"nfs", "v4.1", "nfs4"}, {"nfs", "vers=3", "nfs"},
		{"nfs", "v3", "nfs"}, {"nfs4", "", "nfs4"}, {"glusterfs", "", "fuse.glusterfs"}, {"ext4", "vers=4", "ext4"},
	} {
		if got := KernelType(c.fsType, c.options); got != c.want {
			t.Errorf("%s with %s: %s", c.fsType, c.options, got)
		}
	}
	for what, want := range map[string][2]string{
		`LABEL="my data"`: {"LABEL", "my data"}, "UUID=x": {"UUID", "x"}, "PARTUUID=": {"PARTUUID", ""}, "ID=x": {}, "LABEL": {}, "/dev/vdb": {}, "a=b": {},
	} {
		key, value, ok := Tag(what)
		if [2]string{key, value} != want || ok != (want[0] != "") {
			t.Errorf("%s: %s %s %v", what, key, value, ok)
		}
	}
}
