package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"replicator/api"
)

const healthTimeout = 3 * time.Second

func newHealthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Check that the process lives, as a container's health check",
		Long:  "Ask the process at http.listen for /healthz. It exits 0 when the process answers and 1 when it does not.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := askHealth(cmd); err != nil {
				// Container engines know 0 and 1 only, so that a bad configuration is 1 here too.
				return errors.New(err.Error())
			}
			return nil
		},
	}
}

func askHealth(cmd *cobra.Command) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	client, err := api.NewClient(cfg.HTTP, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
	defer cancel()
	return client.Healthy(ctx)
}
