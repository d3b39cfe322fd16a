package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver is a driver of CSI on the node, with the registrar that announces it to the kubelet. The volume HANDLE is the file system in the file
// HANDLE.img of its directory, which is made by hand. It mounts as drivers of block devices do: once for the node with the options that the kubelet gives, which
// may have context= among them, and from there for each pod.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	name, node, images, socket string
}

func csiDriver(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: csi-driver NAME NODE DIRECTORY")
	}
	const kubelet = "/var/lib/kubelet"
	d := &driver{name: args[0], node: args[1], images: args[2], socket: filepath.Join(kubelet, "plugins", args[0], "csi.sock")}
	registrar := filepath.Join(kubelet, "plugins_registry", d.name+"-reg.sock")
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, d)
	csi.RegisterNodeServer(server, d)
	registration.RegisterRegistrationServer(server, d)
	ended := make(chan error)
	for _, socket := range []string{d.socket, registrar} { // the kubelet looks for the second one
		if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
			return err
		}
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		listener, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		go func() { ended <- server.Serve(listener) }()
	}
	return <-ended
}

// GetInfo is the registrar's answer to the kubelet.
func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: d.name, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

// NotifyRegistrationStatus ends the driver if the kubelet does not take it.
func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !s.PluginRegistered {
		fmt.Fprintln(os.Stderr, "the kubelet does not take the driver:", s.Error)
		os.Exit(1)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// GetPluginInfo says the driver's name.
func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

// Probe says that the driver is there.
func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// GetPluginCapabilities says that it has none: there is no controller.
func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// NodeGetInfo says the node's name.
func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

// NodeGetCapabilities says that volumes are mounted for the node before they are for a pod.
func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	stage := &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{Rpc: stage}}}}, nil
}

// NodeStageVolume mounts a volume for the node.
func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	options := append([]string{"loop"}, r.GetVolumeCapability().GetMount().GetMountFlags()...)
	image := filepath.Join(d.images, filepath.Base(r.GetVolumeId())+".img")
	return &csi.NodeStageVolumeResponse{}, mountOnce(r.GetStagingTargetPath(), "-t", "ext4", "-o", strings.Join(options, ","), image)
}

// NodePublishVolume gives a volume to a pod.
func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, mountOnce(r.GetTargetPath(), "--bind", r.GetStagingTargetPath())
}

// NodeUnpublishVolume takes it from the pod.
func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, errors.Join(unmount(r.GetTargetPath()), removed(r.GetTargetPath()))
}

// NodeUnstageVolume unmounts it.
func (d *driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, unmount(r.GetStagingTargetPath())
}

// mountOnce mounts at a directory unless something is mounted there: the kubelet asks again when it has lost an answer.
func mountOnce(at string, how ...string) error {
	if mounted(at) {
		return nil
	}
	if err := os.MkdirAll(at, 0o750); err != nil {
		return err
	}
	return run("mount", append(how, at)...)
}

func unmount(at string) error {
	if !mounted(at) {
		return nil
	}
	return run("umount", at)
}

func mounted(at string) bool { return exec.Command("mountpoint", "--quiet", at).Run() == nil }

func removed(at string) error {
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
