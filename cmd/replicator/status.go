package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"replicator/api"
	"replicator/config"
	"replicator/fault"
	"replicator/mesh"
)

const (
	askTimeout  = 10 * time.Second // for the process's answer; it asks no server for it
	watchPeriod = time.Second
	clearScreen = "\x1b[H\x1b[2J"
)

func newStatusCommand() *cobra.Command {
	var asJSON, watch, healthy bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show servers, links, tables and conflicts",
		Long: "Show servers, links, tables and conflicts as the process at http.listen sees them; when no process answers, as the\n" +
			"servers' own tables tell. Where HTTP asks for a password, " + api.PasswordVariable + " holds it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch && healthy {
				return usageError{errors.New("--watch goes on, --healthy answers: give one of them")}
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer release()
			v := &statusView{cfg: cfg, out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), json: asJSON}
			if watch {
				return v.watch(ctx)
			}
			s, err := v.show(ctx, v.out)
			if err == nil && healthy && len(api.Unhealthy(s)) > 0 {
				return errAnswerNo
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().BoolVar(&watch, "watch", false, "draw it again every second until interrupted")
	cmd.Flags().BoolVar(&healthy, "healthy", false, "exit 3 when a server is not reachable or a link does not apply")
	return cmd
}

// statusView shows the status of one mesh.
type statusView struct {
	cfg   *config.Config
	out   io.Writer
	notes io.Writer
	json  bool
	noted string
}

func (v *statusView) show(ctx context.Context, out io.Writer) (mesh.Status, error) {
	s, err := v.read(ctx)
	if err != nil {
		return mesh.Status{}, err
	}
	if v.json {
		return s, api.WriteJSON(out, s)
	}
	return s, api.WriteText(out, s)
}

// watch draws until it is interrupted, which is how it is meant to end.
func (v *statusView) watch(ctx context.Context) error {
	file, isFile := v.out.(*os.File)
	terminal := isFile && !v.json && term.IsTerminal(int(file.Fd()))
	ticks := time.NewTicker(watchPeriod)
	defer ticks.Stop()
	for {
		var drawing bytes.Buffer // drawn at once: asking the servers may take seconds
		if terminal {
			drawing.WriteString(clearScreen)
		}
		_, err := v.show(ctx, &drawing)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := v.out.Write(drawing.Bytes()); err != nil {
			return fmt.Errorf("draw status: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

// read asks the process, or else the servers, and says why.
func (v *statusView) read(ctx context.Context) (mesh.Status, error) {
	s, err := v.ask(ctx)
	if err == nil {
		v.noted = ""
		return api.Complete(s), nil
	}
	if note := "replicator: status is read from the servers: " + err.Error(); note != v.noted {
		v.noted = note
		if _, err := fmt.Fprintln(v.notes, note); err != nil {
			return mesh.Status{}, fmt.Errorf("write note: %w", err)
		}
	}
	s, err = mesh.StatusFromTables(ctx, v.cfg)
	return api.Complete(s), err
}

func (v *statusView) ask(ctx context.Context) (mesh.Status, error) {
	client, err := api.NewClient(v.cfg.HTTP, os.Getenv(api.PasswordVariable))
	if err != nil {
		return mesh.Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := client.Status(ctx)
	if err == nil && s.Mesh != v.cfg.Mesh {
		return s, fault.New(fault.Configuration, "give every mesh on this machine an http.listen of its own",
			"the process at %s serves the mesh %q", client.Address(), s.Mesh)
	}
	return s, err
}
