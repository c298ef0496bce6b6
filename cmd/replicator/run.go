package main

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"replicator/api"
	"replicator/config"
	"replicator/fault"
	"replicator/journal"
	"replicator/mesh"
)

const (
	// memoryLimit makes the garbage collector work harder before the process reaches 200 MB.
	memoryLimit = 160 << 20
	// stopLimit leaves a second of the ten that a stop may take for the process's own end.
	stopLimit = 9 * time.Second
)

func newRunCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the mesh until SIGTERM",
		Long: "Run the mesh until SIGTERM or SIGINT, then stop cleanly within 10 seconds. A second signal ends the process at once.\n" +
			"A server that is down, refuses a login or fails a precondition stops its own links only; see `replicator status`.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			context.AfterFunc(ctx, release) // the next signal does what signals do
			log := newLogger(cfg.Log, cmd.ErrOrStderr())
			return runMesh(ctx, cfg, log)
		},
	}
}

// runMesh works until the context ends.
func runMesh(ctx context.Context, cfg *config.Config, log *zap.Logger) error {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // GOMEMLIMIT is not set
		debug.SetMemoryLimit(memoryLimit)
	}
	if err := config.PrepareStateDir(cfg.StateDir); err != nil {
		return err
	}
	lock, err := lockStateDir(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // nothing was written
	var current generation
	if err := current.begin(cfg, log); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	if cfg.HTTP.Listen != "" {
		server, err := api.Listen(ctx, cfg.HTTP, &current, cfg.Added, log)
		if err != nil {
			return err
		}
		group.Go(func() error { return server.Serve(ctx) })
	}
	group.Go(func() error {
		for {
			err := current.Load().Run(ctx)
			switch {
			case errors.Is(err, mesh.ErrReborn) && ctx.Err() == nil:
				if err := current.begin(cfg, log); err != nil {
					return err
				}
			case err == nil && ctx.Err() == nil:
				return errors.New("bug: the mesh ended by itself")
			default:
				return err
			}
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	<-ctx.Done()
	select {
	case err := <-ended:
		return err
	case <-time.After(stopLimit):
		return fault.New(fault.Busy, "nothing: every commit is whole, the next start goes on where this one stopped",
			"the mesh did not stop within %s", stopLimit)
	}
}

// generation is the mesh that runs now: another one takes its place when a server was cloned.
type generation struct{ atomic.Pointer[mesh.Mesh] }

func (g *generation) begin(cfg *config.Config, log *zap.Logger) error {
	m, err := mesh.New(cfg, log)
	if err == nil {
		g.Store(m)
	}
	return err
}

// Status implements api.Mesh.
func (g *generation) Status(ctx context.Context) mesh.Status { return g.Load().Status(ctx) }

// Resume implements api.Mesh.
func (g *generation) Resume(from, to string) error { return g.Load().Resume(from, to) }

// Journals implements api.Mesh.
func (g *generation) Journals() []journal.Server { return g.Load().Journals() }

// newLogger writes to out: one line per entry for people, or one JSON document per entry.
func newLogger(cfg config.Log, out io.Writer) *zap.Logger {
	shape := zap.NewProductionEncoderConfig()
	shape.TimeKey, shape.MessageKey = "time", "message"
	shape.EncodeTime = func(t time.Time, to zapcore.PrimitiveArrayEncoder) {
		to.AppendString(t.UTC().Format("2006-01-02T15:04:05.000000Z"))
	}
	shape.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(shape)
	if cfg.Format == "console" {
		shape.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(shape)
	}
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil { // the configuration has been checked
		level = zapcore.InfoLevel
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out)), level))
}
