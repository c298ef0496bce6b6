package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Child is a program that dies with this process, whatever ends it.
type Child struct{ process *process }

// StartChild starts a program, in a process group of its own: an interrupt from the terminal does not reach it.
func StartChild(cmd *exec.Cmd) (*Child, error) {
	p, err := launch(cmd)
	if err != nil {
		return nil, err
	}
	return &Child{p}, nil
}

// Ended is closed when the program has ended.
func (c *Child) Ended() <-chan struct{} { return c.process.done }

// Pid is its process id.
func (c *Child) Pid() int { return c.process.cmd.Process.Pid }

// Stop asks the program to end with SIGTERM, and kills it when the grace has passed. nil means that it ended by itself
// with exit code 0.
func (c *Child) Stop(grace time.Duration) error {
	if err := c.process.stop(grace); err != nil {
		return err
	}
	if err := c.process.wait(); err != nil {
		return fmt.Errorf("stop process %d: %w", c.Pid(), err)
	}
	return nil
}

// Kill ends the program with SIGKILL.
func (c *Child) Kill() error { return c.process.kill() }

// Folder makes a folder below that of this process's servers. A later user of the sandbox removes it when this process was
// killed.
func Folder(name string) (string, error) { return serverFolder(name) }

// Leave removes the folder of this process's servers, for programs that end. No server may run any more, and none can be
// started afterwards.
func Leave() error {
	run, err := runFolder()
	if err != nil {
		return err
	}
	return os.RemoveAll(run)
}
