package kubelet

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// k3sKubelet gives the kubelet's flags where it is a part of K3s: what K3s gives it of its own accord, as far as somebody asks for it here, then the
// kubelet-arg of K3s's configuration, then those of its command line (pkg/configfilearg/parser.go, pkg/daemons/agent/agent_linux.go).
func (p *Process) k3sKubelet(root *hostfs.Root) []string {
	own := func(flag, short, variable string) string {
		if values := p.given("--"+flag, "-"+short); len(values) > 0 && values[len(values)-1] != "" {
			return values[len(values)-1]
		}
		return p.environment(root, variable)
	}
	settings := k3sSettings(root, orDefault(own("config", "c", "K3S_CONFIG_FILE"), "/etc/rancher/k3s/config.yaml"))
	data := own("data-dir", "d", "K3S_DATA_DIR")
	for _, key := range []string{"data-dir", "d"} {
		if values := settings[key]; data == "" && len(values) > 0 {
			data = values[len(values)-1]
		}
	}
	flags := []string{"--config-dir=" + path.Join(orDefault(data, "/var/lib/rancher/k3s"), "agent/etc/kubelet.conf.d")}
	for _, flag := range append(settings["kubelet-arg"], p.Flag("kubelet-arg")...) {
		flags = append(flags, "--"+strings.TrimLeft(flag, "-"))
	}
	return flags
}

func orDefault(value, otherwise string) string {
	if !path.IsAbs(value) {
		return otherwise
	}
	return value
}

// environment gives a variable that the process was started with.
func (p *Process) environment(root *hostfs.Root, name string) string {
	content, err := root.ReadFile("/proc/" + p.PID + "/environ")
	if err != nil {
		return ""
	}
	for variable := range strings.SplitSeq(string(content), "\x00") {
		if value, is := strings.CutPrefix(variable, name+"="); is {
			return value
		}
	}
	return ""
}

// k3sSettings reads K3s's configuration and the files of the directory beside it, which has its name and .d. A later value takes the place of an earlier one,
// and is added to it where the key ends in a plus sign.
func k3sSettings(root *hostfs.Root, file string) map[string][]string {
	all := map[string][]string{}
	files := append([]string{file}, filesIn(root, file+".d", ".yaml", ".yml")...)
	for _, file := range files {
		content, err := root.ReadFile(file)
		if err != nil {
			continue
		}
		for key, values := range k3sValues(content) {
			if key, more := strings.CutSuffix(key, "+"); more {
				all[key] = append(all[key], values...)
				continue
			}
			all[key] = values
		}
	}
	return all
}

// k3sValues reads one file of K3s's configuration. A value is a list or a single one.
func k3sValues(content []byte) map[string][]string {
	var config map[string]any
	if yaml.Unmarshal(content, &config) != nil {
		return nil
	}
	all := map[string][]string{}
	for key, value := range config {
		list, is := value.([]any)
		if !is {
			list = []any{value}
		}
		for _, v := range list {
			all[key] = append(all[key], fmt.Sprint(v))
		}
	}
	return all
}
