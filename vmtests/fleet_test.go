//go:build cluster

package vmtests

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// plan is what of a Plan of the system-upgrade-controller this test knows.
type plan struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		NodeSelector struct {
			MatchExpressions []struct {
				Key, Operator string
				Values        []string
			} `yaml:"matchExpressions"`
		} `yaml:"nodeSelector"`
		ServiceAccountName string `yaml:"serviceAccountName"`
		Upgrade            struct{ Command, Args []string }
	}
}

// patch changes an object.
func (c *cluster) patch(t *testing.T, path, change string) {
	t.Helper()
	if status, answer, err := c.request(t, http.MethodPatch, path, change); err != nil || status != http.StatusOK {
		t.Fatalf("cannot change %s: %v %d %s", path, err, status, answer)
	}
}

// features does what node-feature-discovery does, which is not to be had here: what the local source's file says becomes labels of the node.
func (m *Machine) features(t *testing.T, c *cluster) map[string]string {
	t.Helper()
	m.Must(t, "systemctl start selinux-provision-evidence.service")
	labels := map[string]string{}
	for line := range strings.Lines(m.Must(t, "grep -v '^#' /etc/kubernetes/node-feature-discovery/features.d/selinux-provision")) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			t.Fatalf("the features have the line %q", line)
		}
		labels[name] = value
	}
	change, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		t.Fatal(err)
	}
	c.patch(t, "/api/v1/nodes/"+nodeName, string(change))
	return labels
}

// chosen tells whether the plan takes the node, as the API server sees it.
func (c *cluster) chosen(t *testing.T, p *plan) bool {
	t.Helper()
	var selector []string
	for _, e := range p.Spec.NodeSelector.MatchExpressions {
		selector = append(selector, e.Key+" "+strings.ToLower(e.Operator)+" ("+strings.Join(e.Values, ",")+")")
	}
	var nodes struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	c.get(t, "/api/v1/nodes?labelSelector="+url.QueryEscape(strings.Join(selector, ",")), &nodes)
	return len(selector) > 0 && len(nodes.Items) == 1
}

// carryOut does what the system-upgrade-controller does for one node, which is not to be had here either: it cordons the node, evicts its pods, runs the plan's
// job, whose pod has all that the controller's has (pkg/upgrade/job/job.go), and gives the node back when the job has succeeded.
func (c *cluster) carryOut(t *testing.T, p *plan, name string, evicted ...string) (succeeded bool) {
	t.Helper()
	node := "/api/v1/nodes/" + nodeName
	c.patch(t, node, `{"spec": {"unschedulable": true}}`)
	for _, pod := range evicted {
		namespace, short, _ := strings.Cut(pod, "/")
		c.create(t, podPath(pod)+"/eviction", "{apiVersion: policy/v1, kind: Eviction, metadata: {name: "+short+", namespace: "+namespace+"}}")
		c.wait(t, pod+" is gone", func() bool { return !c.get(t, podPath(pod), &podStatus{}) })
	}
	jobs := "/apis/batch/v1/namespaces/" + p.Metadata.Namespace + "/jobs"
	job := map[string]any{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"backoffLimit": 0, "template": map[string]any{
			"metadata": map[string]any{"labels": map[string]string{"upgrade.cattle.io/plan": p.Metadata.Name}},
			"spec": map[string]any{
				"hostIPC": true, "hostPID": true, "hostNetwork": true, "restartPolicy": "Never", "serviceAccountName": p.Spec.ServiceAccountName,
				"nodeSelector": map[string]string{"kubernetes.io/hostname": nodeName},
				"tolerations":  []any{map[string]string{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}},
				"volumes":      []any{map[string]any{"name": "host-root", "hostPath": map[string]string{"path": "/", "type": "Directory"}}},
				"containers": []any{map[string]any{
					"name": "upgrade", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "Never", "command": append([]string{"busybox"}, p.Spec.Upgrade.Command...), "args": p.Spec.Upgrade.Args,
					"securityContext": map[string]any{"privileged": true, "capabilities": map[string]any{"add": []string{"CAP_SYS_BOOT"}}},
					"volumeMounts":    []any{map[string]string{"name": "host-root", "mountPath": "/host"}},
				}},
			},
		}},
	}
	text, err := json.Marshal(job) // which is YAML, too
	if err != nil {
		t.Fatal(err)
	}
	c.create(t, jobs, string(text))
	var state struct {
		Status struct{ Succeeded, Failed int }
	}
	c.wait(t, "the job's end", func() bool {
		return c.get(t, jobs+"/"+name, &state) && state.Status.Succeeded+state.Status.Failed > 0
	})
	if state.Status.Succeeded == 1 {
		c.patch(t, node, `{"spec": {"unschedulable": null}}`)
	}
	return state.Status.Succeeded == 1
}

// TestFleet carries out the plan of docs/fleet.md on a node of a cluster: one that is ready is drained, switched to enforcing, watched and kept, and a workload that
// wants an enforcing node comes to it; one that gets sick is given back, and the plan ends there.
//
// Proves V19: the page about a fleet on a node of a cluster; the controllers that it names are stand-ins.
func TestFleet(t *testing.T) {
	program := kubernetes(t, mountsLabelled)
	m := startNode(t, Allowed{`(vmtest-sick|selinux-provision-trial)\.service|selinux-provision-…`, "a unit gets sick, and the host is given back"})
	c := startCluster(t, program, m)
	const file = "/etc/selinux-provision/config.d/10-fleet.yaml"
	m.put(t, file, "version: 1\nmode: permissive\nreadiness: {window: 20s, units: [containerd.service, kubelet.service], containers: [default/web]}\n")
	m.put(t, "/etc/systemd/system/network-of-vmtest.service", "[Unit]\nBefore=kubelet.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c \""+
		strings.NewReplacer("%", "%%", "$", "$$").Replace(network)+"\"\n[Install]\nWantedBy=multi-user.target\n")
	m.Must(t, "systemctl daemon-reload && systemctl enable network-of-vmtest.service && /opt/bin/selinux-provision apply")
	m.startKubelet(t, program, mountsLabelled, "--kubeconfig=/etc/kubernetes/kubeconfig")
	m.Must(t, "systemctl enable kubelet.service")

	m.writeForFleet(t)
	var p plan
	if err := yaml.Unmarshal([]byte(fromPage(t, "kind: Plan")), &p); err != nil || len(p.Spec.Upgrade.Args) != 1 || len(p.Spec.NodeSelector.MatchExpressions) == 0 {
		t.Fatalf("%v: %+v", err, p)
	}
	c.create(t, "/api/v1/namespaces", "{apiVersion: v1, kind: Namespace, metadata: {name: "+p.Metadata.Namespace+"}}")
	c.create(t, "/api/v1/namespaces/"+p.Metadata.Namespace+"/serviceaccounts", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: "+p.Spec.ServiceAccountName+"}}")
	c.wait(t, "the node", func() bool { return c.get(t, "/api/v1/nodes/"+nodeName, &struct{}{}) })
	c.run(t, pod{name: "default/web", containers: []container{{name: "main", command: "sleep 36000"}}})
	m.Must(t, "systemctl daemon-reload")
	if labels := m.features(t, c); labels["feature.node.kubernetes.io/selinux-provision.may-enforce"] != "false" || c.chosen(t, &p) {
		t.Errorf("before there is evidence: %v", labels)
	}

	// A workload that wants an enforcing node waits for one.
	ledger := strings.NewReplacer("registry.example/ledger:1}", "'docker.io/library/busybox:latest', imagePullPolicy: Never, command: [sleep, '36000']}",
		"securityContext:", "hostNetwork: true\n      securityContext:").Replace(fromPage(t, "kind: Deployment"))
	c.create(t, "/apis/apps/v1/namespaces/default/deployments", ledger)
	var deployment struct {
		Status struct{ ReadyReplicas, UnavailableReplicas int }
	}
	const deployed = "/apis/apps/v1/namespaces/default/deployments/ledger"
	c.wait(t, "the deployment's pod", func() bool { return c.get(t, deployed, &deployment) && deployment.Status.UnavailableReplicas == 1 })

	m.reboot(t)
	m.Must(t, "until [ $(ctr -n k8s.io tasks ls | grep -c RUNNING) -ge 2 ]; do sleep 1; done; sleep 20")
	m.features(t, c)
	labels := m.features(t, c)
	if labels["feature.node.kubernetes.io/selinux-provision.may-enforce"] != "true" || !c.chosen(t, &p) {
		t.Fatalf("a node that is ready: %v\n%s", labels, m.fails(t, "/opt/bin/selinux-provision readiness", 0))
	}
	m.expect(t, "mode", "getenforce", "Permissive")

	// The plan, with a window that fits a test.
	good := p
	good.Spec.Upgrade.Args = []string{strings.NewReplacer("window: 10m", "window: 20s", "sleep 660", "sleep 40").Replace(p.Spec.Upgrade.Args[0])}
	if good.Spec.Upgrade.Args[0] == p.Spec.Upgrade.Args[0] {
		t.Fatal("the plan's window is not what this test takes it for")
	}
	if !c.carryOut(t, &good, "good", "default/web") {
		t.Fatalf("the plan fails on a node that is well\n%s", m.Must(t, "cat /var/log/pods/"+p.Metadata.Namespace+"_good*/upgrade/*.log; /opt/bin/selinux-provision status || true"))
	}
	m.expect(t, "mode after the plan", "getenforce", "Enforcing")
	m.status(t, 0)
	if labels := m.features(t, c); labels["feature.node.kubernetes.io/selinux-provision.mode"] != "enforcing" || !c.chosen(t, &p) {
		t.Errorf("after the plan: %v", labels)
	}
	c.wait(t, "the workload that wants an enforcing node", func() bool { return c.get(t, deployed, &deployment) && deployment.Status.ReadyReplicas == 1 })

	// The same on one whose kubelet's neighbour gets sick while it is watched.
	m.Must(t, "rm /etc/selinux-provision/config.d/50-enforcing.yaml && /opt/bin/selinux-provision apply")
	m.expect(t, "mode", "getenforce", "Permissive")
	m.put(t, "/etc/systemd/system/vmtest-sick.service", "[Service]\nExecStart=/bin/sh -c 'until [ $$(getenforce) = Enforcing ]; do sleep 1; done; sleep 5; exit 1'\n")
	m.Must(t, "systemctl daemon-reload && systemctl start vmtest-sick.service")
	sick := p
	sick.Spec.Upgrade.Args = []string{strings.NewReplacer("window: 10m", "window: 3m", "sleep 660", "sleep 60", "containerd.service", "vmtest-sick.service").Replace(p.Spec.Upgrade.Args[0])}
	if c.carryOut(t, &sick, "sick") {
		t.Errorf("the plan goes on from a node that got sick")
	}
	m.expect(t, "mode of the one that got sick", "getenforce", "Permissive")
	if got := m.status(t, 3).problems(); !contains(got, "vmtest-sick.service") {
		t.Errorf("status says\n%s", got)
	}
	var node struct{ Spec struct{ Unschedulable bool } }
	if c.get(t, "/api/v1/nodes/"+nodeName, &node); !node.Spec.Unschedulable {
		t.Error("the node that got sick is given back to the scheduler")
	}
	t.Log(m.Must(t, "cat /var/log/pods/"+p.Metadata.Namespace+"_sick*/upgrade/*.log"))
}
