package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"replicator/api"
	"replicator/change"
	"replicator/config"
	"replicator/mesh"
	"replicator/sandbox"
	"replicator/server"
)

// errEnded says that waiting is of no use: a process has ended that should run on, or a link needs a person.
var errEnded = errors.New("it goes on no more")

var siteNames = []string{"east", "west", "north"}

const (
	account   = "replicator"
	meshName  = "demo"
	stopGrace = 12 * time.Second
	logTail   = 15 // lines
)

// site is a server and the process that applies to it. The process reads the other servers through proxies, one per link.
type site struct {
	name    string
	server  *sandbox.Server
	from    map[string]*sandbox.Proxy // by source
	config  string                    // file
	log     string                    // file
	listen  string
	client  *api.Client
	process *sandbox.Child
}

// stage is everything the demo starts.
type stage struct {
	dir      string
	password string // of the program's account
	sites    []*site
}

// newStage starts the servers and makes everything ready for the processes. What was started is in the stage also when it
// fails.
func newStage(ctx context.Context, flavors []sandbox.Flavor) (*stage, error) {
	dir, err := sandbox.Folder(meshName)
	if err != nil {
		return nil, err
	}
	st := &stage{dir: dir, password: rand.Text()}
	for i := range flavors {
		st.sites = append(st.sites, &site{name: siteNames[i], from: map[string]*sandbox.Proxy{}})
	}
	return st, errors.Join(st.startServers(ctx, flavors), ctx.Err())
}

func (st *stage) startServers(ctx context.Context, flavors []sandbox.Flavor) error {
	errs := make([]error, len(flavors))
	var wg sync.WaitGroup
	for i, s := range st.sites {
		wg.Go(func() {
			s.server, errs[i] = sandbox.Start(ctx, sandbox.Options{Flavor: flavors[i], Name: s.name})
			if errs[i] == nil {
				errs[i] = st.prepare(ctx, s)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// prepare creates the program's account and the tables.
func (st *stage) prepare(ctx context.Context, s *site) error {
	flavor := change.MySQL
	if s.server.Flavor().MariaDB() {
		flavor = change.MariaDB
	}
	statements := server.Grants(flavor, server.GrantRequest{User: account, Password: st.password})
	for _, q := range append(statements, schema()...) {
		if _, err := s.server.DB().ExecContext(ctx, q); err != nil {
			return fmt.Errorf("prepare server %s: %w", s.name, err)
		}
	}
	return nil
}

// startProcesses runs one process per site, each with a configuration of its own.
func (st *stage) startProcesses(ctx context.Context, program string) error {
	for _, s := range st.sites {
		for _, source := range st.sites {
			if source == s {
				continue
			}
			p, err := sandbox.NewProxy(ctx, source.server.Addr())
			if err != nil {
				return err
			}
			s.from[source.name] = p
		}
		if err := st.startProcess(ctx, s, program); err != nil {
			return fmt.Errorf("start replicator of %s: %w", s.name, err)
		}
	}
	return nil
}

func (st *stage) startProcess(ctx context.Context, s *site, program string) error {
	var err error
	if s.listen, err = freeAddress(ctx); err != nil {
		return err
	}
	s.config, s.log = filepath.Join(st.dir, s.name+".yaml"), filepath.Join(st.dir, s.name+".log")
	if err := os.WriteFile(s.config, st.configuration(s), 0o600); err != nil {
		return err
	}
	if s.client, err = api.NewClient(config.HTTP{Listen: s.listen}, ""); err != nil {
		return err
	}
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	// The process outlives the call.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, "run", "--config", s.config)
	cmd.Stdout, cmd.Stderr = log, log
	s.process, err = sandbox.StartChild(cmd)
	return err
}

func (st *stage) configuration(s *site) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# The process of site %s.\nmesh: %s\nsite: %s\nservers:\n", s.name, meshName, s.name)
	for _, other := range st.sites {
		address, own := other.server.Addr(), other == s
		if !own {
			address = s.from[other.name].Addr()
		}
		fmt.Fprintf(&b, "  %s: {endpoints: [%q], user: %s, password: %q, own: %t}\n",
			other.name, address, account, st.password, own)
	}
	fmt.Fprintf(&b, "tables: {include: [%q]}\nhttp: {listen: %q}\nstate_dir: %q\n",
		database+".*", s.listen, filepath.Join(st.dir, "state-"+s.name))
	return []byte(b.String())
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// links asks every process for its links.
func (st *stage) links(ctx context.Context) ([]mesh.LinkStatus, error) {
	var all []mesh.LinkStatus
	for _, s := range st.sites {
		select {
		case <-s.process.Ended():
			return nil, fmt.Errorf("replicator of %s: %w", s.name, errEnded)
		default:
		}
		status, err := s.client.Status(ctx)
		if err != nil {
			return nil, fmt.Errorf("ask replicator of %s: %w", s.name, err)
		}
		all = append(all, status.Links...)
	}
	return all, nil
}

// awaitLinks waits until every link runs.
func (st *stage) awaitLinks(ctx context.Context) error {
	want := len(st.sites) * (len(st.sites) - 1)
	return await(ctx, linkPatience, func() error {
		links, err := st.links(ctx)
		if err != nil {
			return err
		}
		running := 0
		for _, l := range links {
			if l.State == mesh.Running {
				running++
				continue
			}
			err = fmt.Errorf("link %s-%s is %s", l.From, l.To, l.State)
			if l.Error != nil {
				err = fmt.Errorf("%w: %s", err, l.Error.Message)
			}
		}
		if running < want {
			return fmt.Errorf("%d of %d links run: %w", running, want, err)
		}
		return nil
	})
}

// await tries f until it returns nil, or until something has ended for good.
func (st *stage) await(ctx context.Context, patience time.Duration, f func() error) error {
	return await(ctx, patience, func() error {
		err := f()
		if err == nil {
			return nil
		}
		links, lost := st.links(ctx)
		for _, l := range links {
			if l.State == mesh.Stopped && l.Error != nil {
				lost = fmt.Errorf("link %s-%s is stopped: %s: %w", l.From, l.To, l.Error.Message, errEnded)
			}
		}
		return errors.Join(err, lost)
	})
}

// cutLink cuts both directions between two sites; what it returns heals them.
func cutLink(a, b *site) (heal func() error, err error) {
	ways := []*sandbox.Proxy{a.from[b.name], b.from[a.name]}
	return func() error { return errors.Join(ways[0].Heal(), ways[1].Heal()) }, errors.Join(ways[0].Cut(), ways[1].Cut())
}

// logs are the ends of the processes' logs, for a demo that failed.
func (st *stage) logs() string {
	var b strings.Builder
	for _, s := range st.sites {
		if s.log != "" {
			fmt.Fprintf(&b, "log of replicator %s, its end:\n%s\n", s.name, s.logEnd())
		}
	}
	return b.String()
}

func (s *site) logEnd() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-logTail):], "\n")
}

// close stops the processes in good order, then removes servers, proxies and files.
func (st *stage) close() error {
	errs := make([]error, len(st.sites))
	var wg sync.WaitGroup
	for i, s := range st.sites {
		wg.Go(func() {
			if s.process == nil {
				return
			}
			select {
			case <-s.process.Ended(): // whoever waits for its work has noticed
			default:
				errs[i] = s.process.Stop(stopGrace)
			}
		})
	}
	wg.Wait()
	for _, s := range st.sites {
		for _, p := range s.from {
			p.Close()
		}
		if s.server != nil {
			errs = append(errs, s.server.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(st.dir))...)
}

// await tries f until it returns nil.
func await(ctx context.Context, patience time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := f()
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w after %s: %w", context.Cause(ctx), patience, err)
		}
	}
}
