package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"replicator/api"
)

func newLinkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "link", Short: "Steer single links", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use:   "resume FROM TO",
		Short: "Try a stopped or waiting link again at once",
		Long: "Try a stopped or waiting link again at once. A DDL statement at which the link stopped counts as seen to: it is passed\n" +
			"over. Where HTTP asks for a password, " + api.PasswordVariable + " holds it.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, names []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			client, err := api.NewClient(cfg.HTTP, os.Getenv(api.PasswordVariable))
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
			defer cancel()
			if err := client.Resume(ctx, names[0], names[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "link %s -> %s is tried again now\n", names[0], names[1])
			return err
		},
	})
	return cmd
}
