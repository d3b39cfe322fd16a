package provision

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseVolumes(t *testing.T) {
	doc, err := Parse("c.yaml", strings.NewReader(`version: 1
volumes:
  - name: data
    match: {mountpoint: /var/lib/data}
  - name: all_of-it.2
    match:
      mountpoint: '/srv/**/[!a]*'
      source: srv:/export/*
      fstype: fuse.*
      label: My Data
      uuid: AB-*
    context: system_u:object_r:container_file_t:s0:c10,c20
    strategy: relabel
    paths: [pvc-1, a/b]
    required: true
  - {name: shared, match: {label: "1"}, level: s0, strategy: context, paths: []}
relabel: {workers: 4, entries_per_second: 3000, cpu_percent: 50}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Volume{
		{Name: "data", Match: VolumeMatch{Mountpoint: "/var/lib/data"}, Strategy: Auto, Source: Position{"c.yaml", 3}},
		{
			Name:    "all_of-it.2",
			Match:   VolumeMatch{Mountpoint: "/srv/**/[!a]*", Source: "srv:/export/*", FSType: "fuse.*", Label: "My Data", UUID: "AB-*"},
			Context: "system_u:object_r:container_file_t:s0:c10,c20", Strategy: RelabelFiles, Paths: []string{"pvc-1", "a/b"}, Required: true,
			Source: Position{"c.yaml", 5},
		},
		{Name: "shared", Match: VolumeMatch{Label: "1"}, Level: "s0", Strategy: ContextOption, Source: Position{"c.yaml", 16}},
	}
	if !reflect.DeepEqual(doc.volumes, want) {
		t.Errorf("got  %+v\nwant %+v", doc.volumes, want)
	}
	if r := doc.relabel; *r.workers != 4 || *r.entriesPerSecond != 3000 || *r.cpuPercent != 50 {
		t.Errorf("%+v", r)
	}
}

// What fstab writes for a device is no name that the kernel shows: it is read for what it means.
func TestParseSource(t *testing.T) {
	for source, want := range map[string]VolumeMatch{
		"LABEL=data":           {Label: "data"},
		`LABEL="my data"`:      {Label: "my data"},
		"LABEL=data*":          {Label: "data*"},
		"UUID=8E55D011-9C83":   {UUID: "8E55D011-9C83"},
		"PARTUUID=8E55D011-01": {Source: "/dev/disk/by-partuuid/8e55d011-01"},
		"PARTLABEL=data-?":     {Source: "/dev/disk/by-partlabel/data-?"},
		"/dev/disk/by-id/x=y":  {Source: "/dev/disk/by-id/x=y"},
		"server:/x":            {Source: "server:/x"},
	} {
		doc, err := Parse("c.yaml", strings.NewReader("version: 1\nvolumes: [{name: a, match: {source: '"+source+"'}}]\n"))
		if err != nil || len(doc.volumes) != 1 || doc.volumes[0].Match != want {
			t.Errorf("%s: %+v %v", source, doc.volumes, err)
		}
	}
}

// Proves V11.
func TestParseVolumeMessages(t *testing.T) {
	const data = "{name: data, match: {mountpoint: /data}, "
	match := func(m string) string { return "{name: data, match: {" + m + "}}" }
	for _, c := range []struct{ name, text, want string }{
		{"no list", "name: data", `volumes: cannot use a mapping here: write a list, each item behind "- "`},
		{"no name", "[{match: {label: x}}]", `volumes[0]: cannot find the key "name": each volume needs a name and a match`},
		{"no match", "[{name: x}]", `volumes[0]: cannot find the key "match": each volume needs a name and a match`},
		{"empty name", `[{name: "", match: {label: x}}]`, "volumes[0].name: cannot use an empty value here: write a value, or remove the key"},
		{"strange name", "[{name: a/b, match: {label: x}}]", `volumes[0].name: cannot use "a/b" as the name of a volume: ` +
			"write up to 63 letters, digits and _ . -, the first a letter or a digit"},
		{"number for a name", "[{name: 1, match: {label: x}}]", `volumes[0].name: cannot use "1" as the name of a volume: write it as text, in quotes if need be`},
		{"name twice", "[" + match("label: x") + ", " + match("label: y") + "]",
			`volumes[1].name: cannot use the name "data" twice, it is in line 2 already: rename one of the two`},
		{"typo", "[" + data + "contxt: x}]", `volumes[0].contxt: cannot use an unknown key: did you mean "context"?`},
		{"typo in match", "[" + match("mount: /x") + "]", `volumes[0].match.mount: cannot use an unknown key: did you mean "mountpoint"?`},
		{"empty match", "[" + match("") + "]", "volumes[0].match: cannot match without a key: write at least one of mountpoint, source, fstype, label, uuid and csi_driver"},
		{"match as text", "[{name: data, match: /data}]",
			`volumes[0].match: cannot use "/data" here: write keys with values: csi_driver, fstype, label, mountpoint, source and uuid`},
		{"relative mountpoint", "[" + match("mountpoint: data") + "]", `volumes[0].match.mountpoint: cannot use "data" as a mountpoint: begin it with /`},
		{"unclean mountpoint", "[" + match("mountpoint: /data/../etc/") + "]",
			`volumes[0].match.mountpoint: cannot use "/data/../etc/" as a mountpoint: write /etc`},
		{"escape of fstab's", "[" + match(`mountpoint: '/srv/my\040disk'`) + "]", `volumes[0].match.mountpoint: cannot use "/srv/my\040disk" as a mountpoint: ` +
			`what fstab writes with a backslash and three digits is written as it is here: write "/srv/my disk"`},
		{"no label in a source", "[" + match("source: 'LABEL='") + "]", `volumes[0].match.source: cannot use "LABEL=" as what is mounted: it names nothing: write what comes behind LABEL=`},
		{"two labels", "[" + match("source: 'LABEL=a', label: b") + "]",
			`volumes[0].match.source: cannot use "LABEL=a" as what is mounted: there is the key label beside it: remove one of the two`},
		{"two UUIDs", "[" + match("source: 'UUID=a', uuid: b") + "]",
			`volumes[0].match.source: cannot use "UUID=a" as what is mounted: there is the key uuid beside it: remove one of the two`},
		{"strange UUID in a source", "[" + match("source: 'UUID=x'") + "]", `volumes[0].match.source: cannot use "UUID=x" as what is mounted: ` +
			"it is no UUID: write it as blkid shows it, such as UUID=8e55d011-9c83-473e-99c9-c716b1e508e6"},
		{"partition with a blank", "[" + match("source: 'PARTLABEL=a b'") + "]", `volumes[0].match.source: cannot use "PARTLABEL=a b" as what is mounted: ` +
			`udev writes some of its characters otherwise: write the path that "ls /dev/disk/by-partlabel" shows, with \\ for each \ in it`},
		{"system directory", "[" + match("mountpoint: /etc") + "]", `volumes[0].match.mountpoint: cannot use "/etc" as a mountpoint: ` +
			"it is a directory of the operating system: mount the volume elsewhere"},
		{"runtime's", "[" + match("mountpoint: /var/lib/docker/x") + "]", `volumes[0].match.mountpoint: cannot use "/var/lib/docker/x" as a mountpoint: ` +
			"what is mounted there is docker's, which labels it by itself: remove this volume"},
		{"bad pattern", "[" + match("label: 'a[b'") + "]", `volumes[0].match.label: cannot use "a[b" as the label of a file system: ` +
			`a [ has no ]: a \ before it takes the meaning from a character`},
		{"empty label", `[` + match(`label: ""`) + "]", `volumes[0].match.label: cannot use "" as the label of a file system: write text without control characters`},
		{"Btrfs", "[" + match("fstype: btrfs") + "]", `volumes[0].match.fstype: cannot use "btrfs" as a type of file system: ` +
			"one label would hold for all its subvolumes: use ext4 or xfs for volumes"},
		{"strange type", "[" + match("fstype: EXT4") + "]", `volumes[0].match.fstype: cannot use "EXT4" as a type of file system: ` +
			"write it as /proc/filesystems has it, such as ext4, xfs, nfs4 or fuse.sshfs"},
		{"strange UUID", "[" + match("uuid: UUID=x") + "]", `volumes[0].match.uuid: cannot use "UUID=x" as the UUID of a file system: ` +
			"write it as blkid shows it, such as 8e55d011-9c83-473e-99c9-c716b1e508e6"},
		{"typo in driver's key", "[" + match("csi_drivr: x") + "]", `volumes[0].match.csi_drivr: cannot use an unknown key: did you mean "csi_driver"?`},
		{"no driver", "[" + match(`csi_driver: ""`) + "]", `volumes[0].match.csi_driver: cannot use "" as the name of a CSI driver: ` + driverRemedy},
		{"pattern for a driver", "[" + match("csi_driver: '*.example.com'") + "]", `volumes[0].match.csi_driver: cannot use "*.example.com" as the name of a CSI driver: ` + driverRemedy},
		{"path for a driver", "[" + match("csi_driver: a/b") + "]", `volumes[0].match.csi_driver: cannot use "a/b" as the name of a CSI driver: ` + driverRemedy},
		{"long driver", "[" + match("csi_driver: "+strings.Repeat("d", 64)) + "]",
			`volumes[0].match.csi_driver: cannot use "` + strings.Repeat("d", 64) + `" as the name of a CSI driver: ` + driverRemedy},
		{"list of drivers", "[" + match("csi_driver: [a, b]") + "]", `volumes[0].match.csi_driver: cannot use a list as the name of a CSI driver: write it as text, in quotes if need be`},
		{"driver outside the kubelet", "[" + match("csi_driver: a, mountpoint: '/srv/**'") + "]",
			`volumes[0].match.csi_driver: cannot match a CSI driver's volumes at "/srv/**": the kubelet has them mounted below /var/lib/kubelet: remove the mountpoint`},
		{"strategy of a driver's", "[{name: data, strategy: context, match: {csi_driver: a}}]", `volumes[0].strategy: ` + inPlaceOnly},
		{"strategy of the kubelet's", "[{name: data, strategy: context, match: {mountpoint: '/var/lib/kubelet/pods/**'}}]", `volumes[0].strategy: ` + inPlaceOnly},
		{"no volume of the kubelet's", "[" + match("mountpoint: /var/lib/kubelet/pods/u1/etc-hosts") + "]",
			`volumes[0].match.mountpoint: cannot use "/var/lib/kubelet/pods/u1/etc-hosts" as a mountpoint: no CSI volume is mounted there: write where one is: ` +
				"/var/lib/kubelet/plugins/kubernetes.io/csi/DRIVER/HASH/globalmount, or a pattern such as /var/lib/kubelet/plugins/kubernetes.io/csi/DRIVER/**"},
		{"the kubelet's own", "[" + match("mountpoint: /var/lib/kubelet/x") + "]", `volumes[0].match.mountpoint: cannot use "/var/lib/kubelet/x" as a mountpoint: ` +
			"what is mounted there is kubelet's, which labels it by itself: remove this volume"},
		{"context", "[" + data + "context: container_file_t}]", `volumes[0].context: cannot use "container_file_t" as a context: ` +
			"write user:role:type:level, such as system_u:object_r:container_file_t:s0:c10,c20, or only a level with the key level"},
		{"no context", "[" + data + "context: <<none>>}]", `volumes[0].context: cannot use "<<none>>" as a context: ` +
			"write user:role:type:level, such as system_u:object_r:container_file_t:s0:c10,c20, or only a level with the key level"},
		{"empty context", "[" + data + `context: ""}]`, "volumes[0].context: cannot use an empty value here: write a value, or remove the key"},
		{"level", "[" + data + "level: c1}]", `volumes[0].level: cannot use "c1" as a level: write s0 for a volume that containers share, or s0:c10,c20`},
		{"both", "[" + data + "context: 'u:r:t:s0', level: s0}]",
			"volumes[0]: cannot use a context and a level in one volume: the level is the end of the context: remove one of the two"},
		{"strategy", "[" + data + "strategy: mount}]", `volumes[0].strategy: cannot use "mount" as a strategy: write auto, context or relabel`},
		{"strategy and paths", "[" + data + "strategy: context, paths: [a]}]",
			`volumes[0].strategy: cannot use "context" for single paths: the mount option is for the whole volume: write "relabel", or remove the paths`},
		{"absolute path", "[" + data + "paths: [/a]}]",
			`volumes[0].paths[0]: cannot use "/a" as a path in a volume: write it from the root of the volume on, without the / at its beginning`},
		{"path out of it", "[" + data + "paths: [a/../../b]}]", `volumes[0].paths[0]: cannot use "a/../../b" as a path in a volume: write it without ".."`},
		{"the whole", "[" + data + "paths: [.]}]", `volumes[0].paths[0]: cannot use "." as a path in a volume: remove the paths: then the whole volume is labelled`},
		{"unclean path", "[" + data + "paths: [a//b]}]", `volumes[0].paths[0]: cannot use "a//b" as a path in a volume: write a/b`},
		{"path twice", "[" + data + "paths: [a, a]}]", `volumes[0].paths[1]: cannot use "a" as a path in a volume: it is there already: remove one of the two`},
		{"required", "[" + data + "required: maybe}]", `volumes[0].required: cannot use "maybe" as a boolean: write true or false`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("c.yaml", strings.NewReader("version: 1\nvolumes: "+strings.Replace(c.text, "name: data", "name: data", 1)))
			if c.name == "no list" {
				_, err = Parse("c.yaml", strings.NewReader("version: 1\nvolumes: {"+c.text+"}"))
			}
			if err == nil || err.Error() != "c.yaml:2: "+c.want {
				t.Errorf("\ngot  %v\nwant c.yaml:2: %s", err, c.want)
			}
		})
	}
	for text, want := range map[string]string{
		"{workers: 0}":              `relabel.workers: cannot use "0" as a number of workers: write a number from 1 to 256, or remove the key`,
		"{cpu_percent: 50%}":        `relabel.cpu_percent: cannot use "50%" as a share of one processor in percent: write a number from 1 to 10000, or remove the key`,
		"{entries_per_second: '9'}": `relabel.entries_per_second: cannot use "9" as a rate: write a number from 1 to 10000000, or remove the key`,
		"{worker: 1}":               `relabel.worker: cannot use an unknown key: did you mean "workers"?`,
	} {
		if _, err := Parse("c.yaml", strings.NewReader("version: 1\nrelabel: "+text)); err == nil || err.Error() != "c.yaml:2: "+want {
			t.Errorf("\ngot  %v\nwant c.yaml:2: %s", err, want)
		}
	}
}

const (
	driverRemedy = `write the whole name of one, as "kubectl get csidrivers" shows it; for several drivers write several volumes`
	inPlaceOnly  = `cannot use "context" for volumes of the kubelet: what it has mounted is never unmounted to be mounted again: ` +
		"remove the key, or have the driver mount them with the option: mountOptions in the StorageClass"
)

// How a volume asks for those of the kubelet, and what does not.
func TestKubeletsVolumes(t *testing.T) {
	for match, want := range map[string]bool{
		"csi_driver: shares.example.com":                                            true,
		"csi_driver: a, fstype: ext4, mountpoint: '/var/lib/kubelet/plugins/**'":    true,
		"csi_driver: a, mountpoint: '/**'":                                          true,
		"mountpoint: '/var/lib/kubelet/plugins/kubernetes.io/csi/a/**'":             true,
		"mountpoint: /var/lib/kubelet/plugins/kubernetes.io/csi/a/0a1b/globalmount": true,
		"mountpoint: '/var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/**'":        true,
		"mountpoint: '/var/lib/kubelet/**'":                                         false,
		"mountpoint: '/var/lib/**'":                                                 false,
		"fstype: ext4":                                                              false,
	} {
		doc, err := Parse("c.yaml", strings.NewReader("version: 1\nvolumes: [{name: a, match: {"+match+"}}]"))
		if err != nil || doc.volumes[0].Match.KubeletsVolumes() != want {
			t.Errorf("%s: %v, want %v", match, err, want)
		}
	}
}

func TestLoadMergesVolumes(t *testing.T) {
	files := map[string]string{
		dir + "config.yaml": `version: 1
volumes:
  - {name: a, match: {label: a}}
  - {name: b, match: {label: b}}
relabel: {workers: 2, cpu_percent: 10}
`,
		dir + "config.d/1.yaml": `version: 1
volumes:
  - {name: c, match: {label: a, fstype: xfs}}
  - {name: a, match: {label: a}, level: s0:c1}
relabel: {cpu_percent: 20}
`}
	s, err := Load(plant(t, files), "")
	if err != nil {
		t.Fatal(err)
	}
	main, later := dir+"config.yaml", dir+"config.d/1.yaml"
	want := []Volume{
		{Name: "b", Match: VolumeMatch{Label: "b"}, Strategy: Auto, Source: Position{main, 4}},
		{Name: "c", Match: VolumeMatch{Label: "a", FSType: "xfs"}, Strategy: Auto, Source: Position{later, 3}},
		{Name: "a", Match: VolumeMatch{Label: "a"}, Level: "s0:c1", Strategy: Auto, Source: Position{later, 4}},
	}
	if !reflect.DeepEqual(s.Volumes, want) || s.Relabel != (RelabelLimits{Workers: 2, CPUPercent: 20}) {
		t.Errorf("got  %+v\n%+v", s.Volumes, s.Relabel)
	}

	files[dir+"config.d/2.yaml"] = "version: 1\nvolumes: [{name: d, match: {label: b}}]\n"
	_, err = Load(plant(t, files), "")
	if want := dir + `config.d/2.yaml:2: volumes: cannot use the match of "d" for a second volume: "b" has the same (` + main + `:4): ` +
		"make one of them more specific, or remove it"; err == nil || err.Error() != want {
		t.Errorf("\ngot  %v\nwant %s", err, want)
	}
}

func TestVolumesDigest(t *testing.T) {
	base := func() *State {
		return &State{Volumes: []Volume{{Name: "a", Match: VolumeMatch{Label: "x"}, Paths: []string{"p"}}, {Name: "b", Match: VolumeMatch{UUID: "x"}}}}
	}
	seen := map[[32]byte]string{base().VolumesDigest(): "nothing", (&State{}).VolumesDigest(): "no volumes"}
	if s := base(); s.Digest() != (&State{}).Digest() {
		t.Error("volumes are part of the policy's digest")
	}
	for name, change := range map[string]func(s *State){
		"name":       func(s *State) { s.Volumes[0].Name = "c" },
		"mountpoint": func(s *State) { s.Volumes[0].Match.Mountpoint = "x" },
		"source":     func(s *State) { s.Volumes[0].Match.Source = "x" },
		"fstype":     func(s *State) { s.Volumes[0].Match.FSType = "x" },
		"driver":     func(s *State) { s.Volumes[0].Match.CSIDriver = "x" },
		"other key":  func(s *State) { s.Volumes[0].Match = VolumeMatch{UUID: "x"} },
		"context":    func(s *State) { s.Volumes[0].Context = "x" },
		"level":      func(s *State) { s.Volumes[0].Level = "x" },
		"strategy":   func(s *State) { s.Volumes[0].Strategy = RelabelFiles },
		"paths":      func(s *State) { s.Volumes[0].Paths = []string{"p", "q"} },
		"no paths":   func(s *State) { s.Volumes[0].Paths = nil },
		"required":   func(s *State) { s.Volumes[0].Required = true },
		"order":      func(s *State) { s.Volumes[0], s.Volumes[1] = s.Volumes[1], s.Volumes[0] },
		"one less":   func(s *State) { s.Volumes = s.Volumes[:1] },
	} {
		s := base()
		change(s)
		if other, known := seen[s.VolumesDigest()]; known {
			t.Errorf("%s: the digest of %s", name, other)
		}
		seen[s.VolumesDigest()] = name
	}
	s := base()
	s.Volumes[0].Source.Line = 7
	if seen[s.VolumesDigest()] != "nothing" {
		t.Error("the place in the file is part of the digest")
	}
}
