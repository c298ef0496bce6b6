package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// process is a child that dies with its parent.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// launch starts a child. The kernel kills it when the thread that started it ends, so that a goroutine of its own keeps
// that thread until the child has ended: whatever ends this process then ends the child too.
func launch(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

func (p *process) wait() error {
	<-p.done
	return p.err
}

func (p *process) signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.cmd.Process.Pid, err)
	}
	return nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks the process to end, and insists when the grace has passed.
func (p *process) stop(grace time.Duration) error {
	if !p.running() {
		return nil
	}
	if err := errors.Join(p.signal(syscall.SIGCONT), p.signal(syscall.SIGTERM)); err != nil {
		return err
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-p.done:
		return nil
	case <-late.C:
		return errors.Join(fmt.Errorf("stop process %d: not within %s", p.cmd.Process.Pid, grace), p.kill())
	}
}

func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// stopped reports whether no thread runs.
func (p *process) stopped() bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil {
		return false
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		// The state follows the program's name, which is in parentheses and may hold any character.
		if state := text[bytes.LastIndexByte(text, ')')+1:]; len(state) < 2 || state[1] != 'T' {
			return false
		}
	}
	return len(tasks) > 0
}

// processHost runs a server as a child process.
type processHost struct {
	installation installation
	dir          string // everything of this server: data, log, socket
	port         int
	args         []string
	init         string // SQL file for the next start only
	faketime     string // library; nothing: the server has the machine's clock
	process      *process
}

func (h *processHost) data() string { return h.dir + "/data" }

func (h *processHost) start(context.Context) error {
	log, err := os.OpenFile(h.dir+"/error.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(h.installation.base(), "--datadir="+h.data(), "--tmpdir="+h.dir, "--socket="+h.dir+"/s.sock",
		"--pid-file="+h.dir+"/s.pid", fmt.Sprintf("--port=%d", h.port), "--bind-address=127.0.0.1", "--secure-file-priv=")
	if h.installation.flavor.MariaDB() {
		args = append(args, "--ssl-cert="+h.data()+"/"+certificateFile, "--ssl-key="+h.data()+"/"+keyFile)
	}
	if h.init != "" {
		args = append(args, "--init-file="+h.init)
	}
	// The process outlives the call, so that it is not tied to the call's context.
	//nolint:contextcheck // see above
	cmd := h.installation.command(context.Background(), append(args, h.args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = h.dir, log, log
	if h.faketime != "" {
		if cmd.Env == nil {
			cmd.Env = os.Environ()
		}
		cmd.Env = append(cmd.Env, h.clockEnvironment()...)
	}
	h.process, err = launch(cmd)
	return err
}

func (h *processHost) ended() <-chan struct{} { return h.process.done }

func (h *processHost) stop(context.Context) error { return h.process.stop(stopGrace) }

func (h *processHost) kill(context.Context) error { return h.process.kill() }

// pause returns when every thread has stopped: the signal alone takes its time.
func (h *processHost) pause(ctx context.Context) error {
	if err := h.process.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !h.process.stopped() {
		select {
		case <-tick.C:
		case <-h.process.done:
			return errors.New("it has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (h *processHost) resume(context.Context) error { return h.process.signal(syscall.SIGCONT) }

func (h *processHost) log(context.Context) string {
	text, err := os.ReadFile(h.dir + "/error.log")
	if err != nil {
		return err.Error()
	}
	return tail(text)
}

func (h *processHost) remove(context.Context) error {
	if h.process == nil { // it never started
		return os.RemoveAll(h.dir)
	}
	return errors.Join(h.process.kill(), os.RemoveAll(h.dir))
}
