package stages

import (
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

// labelledTree has files with labels; what is not said has the one for all, and a directory too. What has "" is gone when its label is asked for.
type labelledTree struct {
	fstest.MapFS
	all    string
	labels map[string]string
}

func (l labelledTree) ReadDir(name string) ([]fs.DirEntry, error) {
	return l.MapFS.ReadDir(strings.TrimPrefix(name, "/"))
}

func (l labelledTree) Label(name string) (string, error) {
	_, err := fs.Lstat(l.MapFS, strings.TrimPrefix(name, "/"))
	label, ok := l.labels[name]
	if ok && label == "" {
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the label of %s: %w", name, err)
	}
	if ok {
		return label, nil
	}
	return l.all, nil
}

func TestLabelsApart(t *testing.T) {
	t.Parallel()
	const none, var_, bin = "system_u:object_r:unlabeled_t:s0", "system_u:object_r:var_lib_t:s0", "system_u:object_r:bin_t:s0"
	files := fstest.MapFS{}
	for _, name := range []string{"usr/.systemd-sysext/extensions", "usr/lib/os-release", "usr/lib/selinux/config", "usr/bin/bash", "usr/bin/tool", "usr/share/certs/ca.pem"} {
		files[name] = &fstest.MapFile{}
	}
	for _, c := range []struct {
		name   string
		files  fstest.MapFS
		labels map[string]string
		want   []ForeignLabel
	}{
		{"an image without labels", files, nil, nil},
		{"a directory and its program", files, map[string]string{"/usr/bin": var_, "/usr/bin/tool": bin},
			[]ForeignLabel{{"/usr/bin", var_, none}, {"/usr/bin/tool", bin, none}}},
		{"the directory that systemd makes", files, map[string]string{"/usr": bin, "/usr/.systemd-sysext": var_, "/usr/.systemd-sysext/extensions": var_}, nil},
		{"a directory in a directory", files, map[string]string{"/usr/share/certs": var_}, []ForeignLabel{{"/usr/share/certs", var_, none}}},
		{"a program that is removed meanwhile", files, map[string]string{"/usr/bin": var_, "/usr/bin/tool": ""}, []ForeignLabel{{"/usr/bin", var_, none}}},
		{"what is deeper is not looked at", files, map[string]string{"/usr/share/certs/ca.pem": var_}, nil},
		{"the OS image has labels of its own", files, map[string]string{"/usr/lib/selinux": bin, "/usr/bin": bin}, nil},
		{"no OS image", fstest.MapFS{"usr/bin/tool": &fstest.MapFile{}}, map[string]string{"/usr/bin": var_}, nil},
	} {
		if got := labelsApart(labelledTree{c.files, none, c.labels}); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
