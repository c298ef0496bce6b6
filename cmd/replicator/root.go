package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"replicator/config"
)

const (
	configVariable = "REPLICATOR_CONFIG"
	configDefault  = "replicator.yaml"
)

// newRootCommand lists the commands; a new one is one line.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "replicator",
		Short: "Keep MySQL and MariaDB servers equal while all of them are written to",
		Long: "Keep MySQL and MariaDB servers equal while all of them are written to.\n\n" +
			"Exit codes: 0 done; 1 failed or incomplete; 2 wrong usage or configuration; 3 the answer is \"no\".",
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              needsCommand,
	}
	root.PersistentFlags().String("config", cmp.Or(os.Getenv(configVariable), configDefault),
		"the configuration file; default: "+configVariable+", else "+configDefault)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newRunCommand(),
		newDemoCommand(),
		newInitCommand(),
		newCheckCommand(),
		newStatusCommand(),
		newConflictsCommand(),
		newVerifyCommand(),
		newResyncCommand(),
		newCloneCommand(),
		newLinkCommand(),
		newHealthCommand(),
		newVersionCommand(),
	)
	for _, c := range later {
		root.AddCommand(newLaterCommand(c[0], c[1]))
	}
	markUsage(root)
	return root
}

func needsCommand(*cobra.Command, []string) error {
	return usageError{errors.New("name a command")}
}

// markUsage makes wrong arguments of every command usage errors, and gives those that only hold others something to say.
func markUsage(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	if c.HasSubCommands() && c.RunE == nil {
		c.RunE = needsCommand
	}
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
}

// loadConfig reads the configuration that --config names.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, usageError{err}
	}
	return config.Load(path)
}

// later are the commands that a later version brings: they are known, so that nobody takes them for a mistake.
var later = [][2]string{
	{"errors", "List, retry and skip transactions that were set aside"},
	{"drain", "Hand over everything that this process owns"},
	{"pull", "Follow another replicator's change feed"},
}

var errLater = errors.New("not in this version")

func newLaterCommand(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short + " (not in this version)", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return usageError{laterError(cmd.Name())} },
	}
}

// laterError says of a command or flag that it is not in this version.
func laterError(name string) error { return fmt.Errorf("%s: %w", name, errLater) }
