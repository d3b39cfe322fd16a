// Kubernetes is the parts of Kubernetes that the tests of a cluster run, and etcd, in one program, which saves building most packages
// several times. What it is called says which of them it is: kubelet, kube-apiserver, kube-controller-manager, kube-scheduler, etcd; csi-driver is
// a storage driver for the tests (csi.go).
//
// It is a module of its own, because what it needs is for the tests alone, with a go.mod for each release of Kubernetes: v1.36.mod, v1.37.mod.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as the programs of Kubernetes have it
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	name := filepath.Base(os.Args[0])
	var err error
	switch name {
	case "kubelet":
		os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "etcd":
		err = etcd(os.Args[1:])
	case "csi-driver":
		err = csiDriver(os.Args[1:])
	default:
		err = errors.New("it has to be called as one of its parts: kubelet, kube-apiserver, kube-controller-manager, kube-scheduler, etcd, csi-driver")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// etcd is a store of one member for a cluster that lives as long as a test.
func etcd(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: etcd DIRECTORY URL-FOR-CLIENTS URL-FOR-PEERS")
	}
	client, err := url.Parse(args[1])
	if err != nil {
		return err
	}
	peer, err := url.Parse(args[2])
	if err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Dir, c.LogLevel, c.UnsafeNoFsync = args[0], "warn", true
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	server, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer server.Close()
	end, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	select {
	case err := <-server.Err():
		return err
	case <-end.Done():
		return nil
	}
}
