package sandbox_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"replicator/sandbox"
)

var composeServers = []string{"east", "west", "north"}

// compose drives docker-compose.yml as a project of its own.
type compose struct {
	t       *testing.T
	command []string
	env     []string
	ports   map[string]int
}

// newCompose brings the mesh up, with an image of the replicator as it is now and servers of the flavor.
func newCompose(t *testing.T, flavor sandbox.Flavor) *compose {
	t.Helper()
	command := []string{"docker-compose"}
	if _, err := exec.LookPath("docker-compose"); err != nil {
		command = []string{"docker", "compose"}
		if out, err := exec.CommandContext(t.Context(), "docker", "compose", "version").CombinedOutput(); err != nil {
			t.Skipf("neither docker-compose nor docker compose: %v: %s", err, out)
		}
	}
	image, err := sandbox.Image(t.Context(), flavor)
	must(t, err)
	root, err := filepath.Abs("..")
	must(t, err)
	project := "replicator-test-" + strings.ToLower(rand.Text()[:8])
	c := &compose{
		t: t, ports: map[string]int{},
		command: append(command, "-p", project, "-f", filepath.Join(root, "docker-compose.yml")),
		env:     append(os.Environ(), "REPLICATOR_SERVER_IMAGE="+image, "REPLICATOR_IMAGE="+project, "IMAGE="+project),
	}
	for _, name := range composeServers {
		_, port, err := net.SplitHostPort(sandbox.AddressTest(t))
		must(t, err)
		c.ports[name], err = strconv.Atoi(port)
		must(t, err)
		c.env = append(c.env, fmt.Sprintf("REPLICATOR_%s_PORT=%d", strings.ToUpper(name), c.ports[name]))
	}
	c.mustRun(filepath.Join(root, "build", "image.sh"))
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.run(context.Background(), c.command, "logs", "--no-color", "--tail=40") // shown as far as there is any
			t.Log(out)
		}
		if out, err := c.run(context.Background(), c.command, "down", "--volumes", "--timeout", "1"); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		if out, err := c.run(context.Background(), []string{"docker"}, "rmi", project); err != nil {
			t.Errorf("rmi: %v\n%s", err, out)
		}
	})
	c.mustCompose("up", "--no-build", "-d")
	return c
}

func (c *compose) run(ctx context.Context, command []string, args ...string) (string, error) {
	all := append(append([]string{}, command...), args...)
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *compose) mustRun(command ...string) string {
	c.t.Helper()
	out, err := c.run(c.t.Context(), command)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (c *compose) mustCompose(args ...string) string {
	c.t.Helper()
	return c.mustRun(append(append([]string{}, c.command...), args...)...)
}

// awaitHealthy waits until a service's own health check succeeds.
func (c *compose) awaitHealthy(service string) {
	c.t.Helper()
	id := c.mustCompose("ps", "-q", service)
	within(c.t, 4*time.Minute, func(ctx context.Context) error {
		state, err := c.run(ctx, []string{"docker"}, "inspect", "-f", "{{.State.Health.Status}}", id)
		if err == nil && strings.TrimSpace(state) != "healthy" {
			err = errors.New(service + " is " + state)
		}
		return err
	})
}

// root connects to a server as its root, with the password that setup generated.
func (c *compose) root(server string) *sql.DB {
	c.t.Helper()
	config := mysql.NewConfig()
	config.User, config.Net, config.Addr = "root", "tcp", "127.0.0.1:"+strconv.Itoa(c.ports[server])
	config.Passwd = c.mustCompose("exec", "-T", server, "cat", "/run/replicator/root_password")
	connector, err := mysql.NewConnector(config)
	must(c.t, err)
	db := sql.OpenDB(connector)
	c.t.Cleanup(func() { db.Close() })
	return db
}

func TestComposeMesh(t *testing.T) {
	t.Parallel()
	requireDocker(t)
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			testComposeMesh(t, newCompose(t, flavor))
		})
	}
}

func testComposeMesh(t *testing.T, c *compose) {
	c.awaitHealthy("replicator")
	servers := map[string]*sql.DB{}
	passwords := map[string]bool{}
	for _, name := range composeServers {
		c.awaitHealthy(name)
		servers[name] = c.root(name)
		passwords[c.mustCompose("exec", "-T", name, "cat", "/run/replicator/replicator_password")] = true
		_, err := servers[name].ExecContext(t.Context(), "CREATE DATABASE app")
		must(t, err)
		_, err = servers[name].ExecContext(t.Context(), "CREATE TABLE app.t (id INT PRIMARY KEY, origin VARCHAR(10))")
		must(t, err)
	}
	if len(passwords) != len(composeServers) {
		t.Errorf("%d passwords for %d servers", len(passwords), len(composeServers))
	}
	arrives := func(id int, from string) {
		_, err := servers[from].ExecContext(t.Context(), "INSERT INTO app.t VALUES (?, ?)", id, from)
		must(t, err)
		for _, to := range composeServers {
			within(t, 2*time.Minute, func(ctx context.Context) error {
				var got string
				return servers[to].QueryRowContext(ctx, "SELECT origin FROM app.t WHERE id = ?", id).Scan(&got)
			})
		}
	}
	for i, name := range composeServers {
		arrives(i, name)
	}
	// The account has all that the program needs, and its configuration is right.
	c.mustCompose("exec", "-T", "replicator", "/replicator", "check")
	// MySQL takes ten seconds to stop in order: here it is killed.
	c.mustCompose("restart", "-t", "2", "replicator", "west")
	c.awaitHealthy("west")
	arrives(10, "east")
	arrives(11, "west")
}
