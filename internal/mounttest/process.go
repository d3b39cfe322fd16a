package mounttest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
)

// Process is a command that is under way and ends when its input does, as a script with "read" at its end.
type Process struct {
	*exec.Cmd
	input io.Closer
}

// End ends its input, waits for it, and gives how it ended.
func (p *Process) End() error {
	return errors.Join(p.input.Close(), p.Wait())
}

// Begin starts a command and waits for the first thing that it says on its standard output. It ends with the test, if End was not called.
func Begin(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Process{cmd, input}
	t.Cleanup(func() { _ = p.End() })
	if _, err := output.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return p
}
