// Pod asks a container runtime for pods and their containers by the CRI, as the kubelet does, and keeps their logs where the kubelet does. It is a
// module of its own: what it needs is for the tests alone.
//
//	pod [flags] run NAMESPACE/POD CONTAINER COMMAND...   start a container, and its pod unless that runs
//	pod remove NAMESPACE/POD                             stop a pod and remove it
//	pod address NAMESPACE/POD                            print the address that the network plugins gave it
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels and the place of logs, as the kubelet has them.
const (
	podName      = "io.kubernetes.pod.name"
	podNamespace = "io.kubernetes.pod.namespace"
	podUID       = "io.kubernetes.pod.uid"
	podContainer = "io.kubernetes.container.name"

	podLogs       = "/var/log/pods"
	containerLogs = "/var/log/containers"
)

type options struct {
	uid, image, typ, podType     string
	mounts                       []string
	noNewPrivs, privileged, wait bool
	network                      bool
	hostPort                     int
}

func main() {
	var o options
	socket := flag.String("socket", "unix:///run/containerd/containerd.sock", "where the runtime listens")
	flag.StringVar(&o.uid, "uid", "", "the pod's UID; else one is made")
	flag.StringVar(&o.image, "image", "docker.io/library/busybox:latest", "what to run")
	flag.StringVar(&o.podType, "pod-type", "", "seLinuxOptions.type of the pod, and of the container unless that has its own")
	flag.StringVar(&o.typ, "type", "", "seLinuxOptions.type of the container")
	flag.BoolVar(&o.noNewPrivs, "no-new-privs", false, "allowPrivilegeEscalation: false")
	flag.BoolVar(&o.privileged, "privileged", false, "privileged: true")
	flag.BoolVar(&o.wait, "wait", false, "wait for the container's end, print its log, and exit as it did")
	flag.BoolVar(&o.network, "network", false, "a network of its own, from the network plugins; else the host's")
	flag.IntVar(&o.hostPort, "host-port", 0, "the host's port that leads to the pod's port of the same number")
	flag.Func("mount", "HOST:CONTAINER, read-only; may be repeated", func(text string) error { o.mounts = append(o.mounts, text); return nil })
	flag.Parse()
	code, err := run(context.Background(), *socket, &o, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 125
	}
	os.Exit(code)
}

func run(ctx context.Context, socket string, o *options, args []string) (int, error) {
	connection, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	k := &kubelet{cri.NewRuntimeServiceClient(connection)}
	switch {
	case len(args) >= 4 && args[0] == "run":
		namespace, name, _ := strings.Cut(args[1], "/")
		return k.run(ctx, o, namespace, name, args[2], args[3:])
	case len(args) == 2 && args[0] == "remove":
		namespace, name, _ := strings.Cut(args[1], "/")
		return 0, k.remove(ctx, namespace, name)
	case len(args) == 2 && args[0] == "address":
		namespace, name, _ := strings.Cut(args[1], "/")
		return 0, k.address(ctx, namespace, name)
	}
	return 0, errors.New("usage: pod [flags] run NAMESPACE/POD CONTAINER COMMAND... | pod remove NAMESPACE/POD | pod address NAMESPACE/POD")
}

type kubelet struct{ cri.RuntimeServiceClient }

// find gives the pod of this name, nil if none runs.
func (k *kubelet) find(ctx context.Context, namespace, name string) (*cri.PodSandbox, error) {
	all, err := k.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{podNamespace: namespace, podName: name}, State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil || len(all.Items) == 0 {
		return nil, err
	}
	return all.Items[0], nil
}

// config is the pod's.
func (o *options) config(namespace, name, uid string) *cri.PodSandboxConfig {
	var ports []*cri.PortMapping
	if o.hostPort != 0 {
		ports = append(ports, &cri.PortMapping{Protocol: cri.Protocol_TCP, ContainerPort: int32(o.hostPort), HostPort: int32(o.hostPort)})
	}
	return &cri.PodSandboxConfig{
		PortMappings: ports,
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: uid},
		LogDirectory: filepath.Join(podLogs, namespace+"_"+name+"_"+uid),
		Labels:       map[string]string{podName: name, podNamespace: namespace, podUID: uid},
		DnsConfig:    &cri.DNSConfig{Servers: []string{"127.0.0.1"}},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    "/kubepods/besteffort/pod" + uid,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: o.namespaces(), SelinuxOptions: selinux(o.podType), Privileged: o.privileged},
		},
	}
}

func (o *options) namespaces() *cri.NamespaceOption {
	network := cri.NamespaceMode_NODE
	if o.network {
		network = cri.NamespaceMode_POD
	}
	return &cri.NamespaceOption{Network: network, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD}
}

func selinux(typ string) *cri.SELinuxOption {
	if typ == "" {
		return nil
	}
	return &cri.SELinuxOption{Type: typ}
}

func (k *kubelet) run(ctx context.Context, o *options, namespace, name, container string, command []string) (int, error) {
	pod, err := k.find(ctx, namespace, name)
	if err != nil {
		return 0, err
	}
	if o.uid == "" {
		random := make([]byte, 16)
		_, _ = rand.Read(random)
		o.uid = fmt.Sprintf("%x-%x-%x-%x-%x", random[:4], random[4:6], random[6:8], random[8:10], random[10:])
	}
	var id string
	if pod != nil {
		id, o.uid = pod.Id, pod.Metadata.Uid
	}
	config := o.config(namespace, name, o.uid)
	if pod == nil {
		if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
			return 0, err
		}
		made, err := k.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
		if err != nil {
			return 0, fmt.Errorf("cannot make the pod: %w", err)
		}
		id = made.PodSandboxId
	}
	log := filepath.Join(container, "0.log")
	for n := 1; exists(filepath.Join(config.LogDirectory, log)); n++ {
		log = filepath.Join(container, fmt.Sprintf("%d.log", n))
	}
	if err := os.MkdirAll(filepath.Join(config.LogDirectory, container), 0o755); err != nil {
		return 0, err
	}
	c := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: container, Attempt: attempt(log)}, Image: &cri.ImageSpec{Image: o.image, UserSpecifiedImage: o.image}, Command: command, LogPath: log,
		Labels: map[string]string{podName: name, podNamespace: namespace, podUID: o.uid, podContainer: container},
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: o.namespaces(), SelinuxOptions: selinux(cmp.Or(o.typ, o.podType)), NoNewPrivs: o.noNewPrivs, Privileged: o.privileged,
		}},
	}
	for _, mount := range o.mounts {
		host, inside, _ := strings.Cut(mount, ":")
		c.Mounts = append(c.Mounts, &cri.Mount{HostPath: host, ContainerPath: inside, Readonly: true})
	}
	made, err := k.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: config})
	if err != nil {
		return 0, fmt.Errorf("cannot make the container: %w", err)
	}
	if _, err := k.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		return 0, fmt.Errorf("cannot start the container: %w", err)
	}
	file := filepath.Join(config.LogDirectory, log)
	if err := os.MkdirAll(containerLogs, 0o755); err != nil {
		return 0, err
	}
	if err := os.Symlink(file, filepath.Join(containerLogs, fmt.Sprintf("%s_%s_%s-%s.log", name, namespace, container, made.ContainerId))); err != nil {
		return 0, err
	}
	if !o.wait {
		fmt.Println(made.ContainerId)
		return 0, nil
	}
	return k.end(ctx, made.ContainerId, file)
}

// attempt is the number in a log's name.
func attempt(log string) (n uint32) {
	_, _ = fmt.Sscanf(filepath.Base(log), "%d.log", &n)
	return n
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

// end waits until a container has ended.
func (k *kubelet) end(ctx context.Context, id, file string) (int, error) {
	for {
		now, err := k.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return 0, err
		}
		if now.Status.State == cri.ContainerState_CONTAINER_EXITED {
			log, err := os.Open(file)
			if err != nil {
				return 0, err
			}
			defer log.Close()
			_, err = io.Copy(os.Stdout, log)
			return int(now.Status.ExitCode), err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (k *kubelet) address(ctx context.Context, namespace, name string) error {
	pod, err := k.find(ctx, namespace, name)
	if err != nil {
		return err
	}
	if pod == nil {
		return fmt.Errorf("there is no pod %s/%s", namespace, name)
	}
	status, err := k.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: pod.Id})
	if err == nil {
		fmt.Println(status.Status.Network.GetIp())
	}
	return err
}

func (k *kubelet) remove(ctx context.Context, namespace, name string) error {
	pod, err := k.find(ctx, namespace, name)
	if err != nil {
		return err
	}
	if pod == nil {
		return fmt.Errorf("there is no pod %s/%s", namespace, name)
	}
	if _, err := k.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
		return err
	}
	_, err = k.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id})
	return err
}
