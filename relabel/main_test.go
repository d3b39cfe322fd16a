package relabel

import (
	"os"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/mounttest"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }
