package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"replicator/demo"
	"replicator/sandbox"
)

func newDemoCommand() *cobra.Command {
	var keep bool
	var flavors []string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it on three real servers of this machine",
		Long: "Show it on three real servers of this machine: found, or fetched from Debian's packages without root, or run by Docker.\n" +
			"All of them are written to, one link is cut and healed, and all tables are compared. Exit code 3: they are not equal.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := demo.Options{Keep: keep, Progress: cmd.ErrOrStderr()}
			var err error
			if o.Flavors, err = threeFlavors(flavors); err != nil {
				return err
			}
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("find the program's own file: %w", err)
			}
			ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer release()
			passed := false
			err = demo.Run(ctx, o, func(r *demo.Result) error {
				passed = r.Passed()
				return r.Write(cmd.OutOrStdout())
			})
			if err == nil && !passed {
				return errAnswerNo
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave servers, replicators and their HTTP addresses running until interrupted")
	cmd.Flags().StringSliceVar(&flavors, "flavors", nil,
		"three servers, or one for all three, of "+fmt.Sprint(sandbox.Flavors)+"; default: the first that can be had")
	return cmd
}

func threeFlavors(names []string) ([]sandbox.Flavor, error) {
	var flavors []sandbox.Flavor
	for _, name := range names {
		flavors = append(flavors, sandbox.Flavor(strings.TrimSpace(name)))
	}
	switch len(flavors) {
	case 0, 3:
		return flavors, nil
	case 1:
		return []sandbox.Flavor{flavors[0], flavors[0], flavors[0]}, nil
	}
	return nil, usageError{errors.New("--flavors takes one or three servers")}
}
