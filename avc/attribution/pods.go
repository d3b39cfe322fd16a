package attribution

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/bbolt"
)

// Options are what a pod's spec says of SELinux for a container (seLinuxOptions). What is not said is empty.
type Options struct {
	User  string `json:"user"`
	Role  string `json:"role"`
	Type  string `json:"type"`
	Level string `json:"level"`
}

// PodContainer is a container of a pod of Kubernetes'.
type PodContainer struct {
	*Container
	// UID is the pod's, Level the one that its runtime chose for the pod, "" if that is not known.
	UID, Level string
	// Requested is what the pod's spec asks for, and Known says that its runtime keeps that.
	Requested Options
	Known     bool
}

// Pods gives the containers of Kubernetes' pods that their runtimes have, in the order of their pods and IDs, without those that hold a pod together.
func (h *Host) Pods() (all []PodContainer) {
	levels := map[string]string{}
	ids := map[string]bool{}
	var order []string
	for _, c := range h.containers {
		switch {
		case c.uid == "" || c.gone || c.Subject.Runtime == "kubernetes": // a log's name is all that there is of such a one
		case c.sandbox:
			levels[c.uid] = c.level()
		default:
			ids[c.Subject.ID] = true
			order = append(order, c.Subject.Pod+"\x00"+c.Subject.ID)
		}
	}
	requested := h.requested(ids)
	slices.Sort(order)
	for _, key := range order {
		_, id, _ := strings.Cut(key, "\x00")
		c := PodContainer{Container: h.containers[id]}
		c.UID, c.Level = c.uid, levels[c.uid]
		c.Requested, c.Known = requested[id]
		all = append(all, c)
	}
	return all
}

// requested asks the databases of containerd what its CRI was told of containers. Of one that is not there nothing is known.
func (h *Host) requested(ids map[string]bool) map[string]Options {
	all := map[string]Options{}
	if len(ids) == 0 {
		return all
	}
	for _, from := range containerds() {
		if from.root == "" {
			continue
		}
		file, err := h.root.OpenFile(from.root + "/io.containerd.metadata.v1.bolt/meta.db")
		if err != nil {
			continue
		}
		found := map[string]Options{}
		err = bbolt.View(file, func(root bbolt.Bucket) error {
			clear(found)
			return readRequests(root, ids, found)
		})
		_ = file.Close()
		if err != nil {
			continue
		}
		maps.Copy(all, found)
	}
	return all
}

// readRequests reads v1/k8s.io/containers/ID/extensions (containerd, metadata/buckets.go).
func readRequests(root bbolt.Bucket, ids map[string]bool, into map[string]Options) error {
	containers, ok, err := bucket(root, "v1", "k8s.io", "containers")
	if err != nil || !ok {
		return err
	}
	for id := range ids {
		extensions, ok, err := bucket(containers, id, "extensions")
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		value, ok, err := extensions.Get("io.cri-containerd.container.metadata")
		if err != nil {
			return err
		}
		if options, readable := parseRequest(value); ok && readable {
			into[id] = options
		}
	}
	return nil
}

// parseRequest reads what the CRI of containerd keeps of a container (its store/container/metadata.go): JSON in a protobuf's Any.
func parseRequest(content []byte) (o Options, ok bool) {
	var m struct {
		Version  string
		Metadata struct {
			ID     string
			Config *struct {
				Linux struct {
					Security struct {
						Options Options `json:"selinux_options"`
					} `json:"security_context"`
				} `json:"linux"`
			}
		}
	}
	value := anyValue(content)
	if json.Unmarshal(value, &m) != nil || m.Version != "v1" || m.Metadata.Config == nil {
		return o, false
	}
	return m.Metadata.Config.Linux.Security.Options, true
}

// anyValue gives the value of a google.protobuf.Any: its field 2. Both of its fields have a length.
func anyValue(content []byte) []byte {
	for len(content) > 0 {
		tag, n := binary.Uvarint(content)
		if n <= 0 || tag&7 != 2 {
			return nil
		}
		size, m := binary.Uvarint(content[n:])
		if m <= 0 || size > uint64(len(content)-n-m) {
			return nil
		}
		value := content[n+m : n+m+int(size)]
		if tag>>3 == 2 {
			return value
		}
		content = content[n+m+int(size):]
	}
	return nil
}

// bucket goes down from one bucket to another.
func bucket(from bbolt.Bucket, names ...string) (b bbolt.Bucket, ok bool, err error) {
	b = from
	for _, name := range names {
		if b, ok, err = b.Bucket(name); err != nil || !ok {
			return b, false, err
		}
	}
	return b, true, nil
}
