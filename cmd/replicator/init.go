package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/server"
)

// initializer is the command init with its flags.
type initializer struct {
	in        io.Reader
	out, errs io.Writer

	mesh, user, reader, host string
	tables                   []string
	logTable                 string
	targets                  []target
	passwords                map[string]string // by name of the server
}

// target is one NAME=host:port of the command line.
type target struct{ name, endpoint string }

func newInitCommand() *cobra.Command {
	i := &initializer{passwords: map[string]string{}}
	var grants, changeLog, newIdentity bool
	cmd := &cobra.Command{
		Use:   "init NAME=host:port ...",
		Short: "Print a configuration for servers, or the SQL of their accounts",
		Long: "Ask the servers what they are and print a commented configuration. The password of each is taken from the variable\n" +
			"NAME_PASSWORD (the server's name in capitals, other characters than letters and digits as _), else asked for.\n\n" +
			"  replicator init east=db-east:3306 west=db-west:3306 > replicator.yaml\n" +
			"  replicator init --grants east=db-east:3306 west=db-west:3306   # needs no account yet\n" +
			"  replicator init --change-log --table app.change_log            # asks nobody\n" +
			"  replicator init --new-identity copy=db-copy:3306",
		Args: func(cmd *cobra.Command, args []string) error {
			if changeLog {
				return nil
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			i.in, i.out, i.errs = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer release()
			if err := i.parse(args); err != nil {
				return err
			}
			switch {
			case cmd.Flags().Changed("table") && !changeLog:
				return usageError{errors.New("--table goes with --change-log; the tables to replicate are --tables")}
			case changeLog:
				return i.printChangeLog()
			case grants:
				return i.printGrants(ctx)
			case newIdentity:
				return i.renewIdentities(ctx)
			}
			return i.printConfig(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&i.mesh, "mesh", "mesh", "the name of the mesh")
	f.StringVar(&i.user, "user", "replicator", "the account")
	f.StringVar(&i.reader, "reader", "", "a second account for the binlog")
	f.StringVar(&i.host, "host", "%", "with --grants: from where the accounts log in")
	f.StringSliceVar(&i.tables, "tables", []string{"*.*"}, "the tables to replicate: database.table, * wildcards")
	f.BoolVar(&grants, "grants", false, "print the SQL of accounts with the fewest privileges, for each flavor")
	f.BoolVar(&newIdentity, "new-identity", false, "give servers whose data was copied an identity of their own")
	f.BoolVar(&changeLog, "change-log", false, "print the SQL of a change_log, in which an application says who changed what, when and why")
	f.StringVar(&i.logTable, "table", "app.change_log", "with --change-log: its name")
	cmd.MarkFlagsMutuallyExclusive("grants", "new-identity", "change-log")
	return cmd
}

func (i *initializer) parse(args []string) error {
	for _, arg := range args {
		name, endpoint, found := strings.Cut(arg, "=")
		if !found || name == "" || endpoint == "" {
			return usageError{fmt.Errorf("%q is not NAME=host:port", arg)}
		}
		if strings.Contains(endpoint, "@") {
			return usageError{fmt.Errorf("%s: an address holds no account: use --user and %s", name, passwordVariable(name))}
		}
		if !strings.Contains(endpoint, ":") {
			endpoint += ":3306"
		}
		i.targets = append(i.targets, target{name, endpoint})
	}
	return nil
}

var notInVariable = regexp.MustCompile(`[^A-Z0-9]`)

func passwordVariable(server string) string {
	name := notInVariable.ReplaceAllString(strings.ToUpper(server), "_") + "_PASSWORD"
	if name[0] >= '0' && name[0] <= '9' { // no name of a variable begins with a digit
		name = "_" + name
	}
	return name
}

// askPasswords takes each password from the environment, or from the terminal without showing it, or from a line of a
// standard input that is none.
func (i *initializer) askPasswords() error {
	lines := bufio.NewReader(i.in)
	for _, t := range i.targets {
		variable := passwordVariable(t.name)
		if value, set := os.LookupEnv(variable); set {
			i.passwords[t.name] = value
			continue
		}
		if _, err := fmt.Fprintf(i.errs, "Password of %s at %s (%s): ", i.user, t.name, t.endpoint); err != nil {
			return fmt.Errorf("ask for a password: %w", err)
		}
		text, err := readPassword(i.in, lines)
		_, _ = fmt.Fprintln(i.errs) // only the look of the terminal depends on it
		if err != nil {
			return fault.Wrap(err, fault.Configuration, "set "+variable, "read the password of %s", t.name)
		}
		i.passwords[t.name] = text
	}
	return nil
}

func readPassword(in io.Reader, lines *bufio.Reader) (string, error) {
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		raw, err := term.ReadPassword(int(file.Fd()))
		return string(raw), err
	}
	text, err := lines.ReadString('\n')
	if errors.Is(err, io.EOF) && text != "" {
		err = nil
	}
	return strings.TrimRight(text, "\r\n"), err
}

// printGrants asks the servers for their flavor only, which needs no account.
func (i *initializer) printGrants(ctx context.Context) error {
	request := server.GrantRequest{User: i.user, Host: i.host, Reader: i.reader}
	for _, pattern := range i.tables {
		database, err := config.DatabaseOf(pattern)
		if err != nil {
			return usageError{fmt.Errorf("--tables %q: %w", pattern, err)}
		}
		if !slices.Contains(request.Databases, database) {
			request.Databases = append(request.Databases, database)
		}
	}
	names := map[change.Flavor][]string{}
	for _, t := range i.targets {
		info, err := server.Greeting(ctx, t.endpoint)
		if err != nil {
			return err
		}
		names[info.Flavor] = append(names[info.Flavor], t.name+" ("+info.String()+")")
	}
	var out strings.Builder
	for _, flavor := range []change.Flavor{change.MySQL, change.MariaDB} {
		if len(names[flavor]) == 0 {
			continue
		}
		fmt.Fprintf(&out, "-- Run this on %s, with a password of your own for <password>.\n", strings.Join(names[flavor], ", "))
		for _, statement := range server.Grants(flavor, request) {
			fmt.Fprintf(&out, "%s;\n", statement)
		}
		out.WriteByte('\n')
	}
	_, err := io.WriteString(i.out, strings.TrimRight(out.String(), "\n")+"\n")
	return err
}

func (i *initializer) renewIdentities(ctx context.Context) error {
	if err := i.askPasswords(); err != nil {
		return err
	}
	for _, t := range i.targets {
		err := i.withServer(t, func(s *server.Server) error {
			old, renewed, err := s.RenewIdentity(ctx)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(i.out, "%s: identity %s, was %s\n", t.name, renewed, old)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *initializer) withServer(t target, do func(*server.Server) error) error {
	c := &config.Server{
		Name: t.name, Endpoints: []string{t.endpoint}, Own: true, TLS: config.TLS{Mode: config.TLSPreferred},
		Account: config.Account{User: i.user, Secret: config.NewSecret(i.passwords[t.name])},
	}
	c.Reader = &c.Account
	s, err := server.Open(c, server.Options{})
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}
