package sandbox

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"

	"replicator/fault"
	"replicator/sandbox/once"
)

// runLabel marks containers with the folder of the process that started them.
const runLabel = "replicator.sandbox.run"

type silentLogger struct{}

func (silentLogger) Printf(string, ...any) {}

// prepareTestcontainers switches off its reaper, an image that a machine without a registry cannot have; containers carry
// a label instead, by which the next user of the sandbox removes those of a killed process.
var prepareTestcontainers = sync.OnceValue(func() error {
	log.SetDefault(silentLogger{})
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return err
	}
	_, inContainer := os.Stat("/.dockerenv")
	if inContainer == nil && os.Getenv("TESTCONTAINERS_HOST_OVERRIDE") == "" {
		return os.Setenv("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
	}
	return nil
})

// dockerEngine connects to the Docker engine.
func dockerEngine(ctx context.Context) (*client.Client, error) {
	if err := prepareTestcontainers(); err != nil {
		return nil, fmt.Errorf("prepare containers: %w", err)
	}
	c, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err == nil {
		_, err = c.Ping(ctx, client.PingOptions{})
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Precondition, "start a Docker engine, and let this user use it", "no Docker engine answers")
	}
	sweepContainers(ctx, c.Client)
	return c.Client, nil
}

// HasDocker reports whether a Docker engine answers.
func HasDocker(ctx context.Context) error {
	c, err := dockerEngine(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// sweepContainers removes the containers of processes that are gone.
func sweepContainers(ctx context.Context, c *client.Client) {
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", runLabel)})
	if err != nil {
		return
	}
	for _, item := range list.Items {
		lock, err := hold(item.Labels[runLabel] + "/lock")
		if err == nil {
			lock.Close()
		} else if !os.IsNotExist(err) {
			continue // its process lives
		}
		// Someone else may be removing it too; whoever starts the next container tries again.
		_, _ = c.ContainerRemove(ctx, item.ID, client.ContainerRemoveOptions{RemoveVolumes: true, Force: true})
	}
}

// images are the public ones, and the variables that name others.
var images = map[Flavor]struct{ variable, name string }{
	MySQL97:     {"REPLICATOR_MYSQL_IMAGE", "mysql:9"},
	MariaDB118:  {"REPLICATOR_MARIADB_IMAGE", "mariadb:11.8"},
	MariaDB1011: {"REPLICATOR_MARIADB_1011_IMAGE", "mariadb:10.11"},
}

// Image returns the name of an image of a server that the local engine has. It is the one that REPLICATOR_MYSQL_IMAGE or
// REPLICATOR_MARIADB_IMAGE name, or the public one, pulled where a registry can be reached; where none can, a stand-in is
// built from Debian's packages, which honours the same environment variables and arguments.
func Image(ctx context.Context, f Flavor) (string, error) {
	which, ok := images[f]
	if !ok {
		return "", fault.New(fault.Configuration, "use one of "+fmt.Sprint(Flavors), "no image is known of %s", f)
	}
	engine, err := dockerEngine(ctx)
	if err != nil {
		return "", err
	}
	defer engine.Close()
	name, chosen := which.name, false
	if v := os.Getenv(which.variable); v != "" {
		name, chosen = v, true
	}
	pullErr := ensureImage(ctx, engine, name)
	if pullErr == nil {
		return name, nil
	}
	if chosen {
		return "", fault.Wrap(pullErr, fault.Precondition, "pull the image that "+which.variable+" names, or unset it",
			"image %s cannot be had", name)
	}
	standIn := "replicator-stand-in/" + string(f) + ":" + standInVersion()
	home, err := writableHome()
	if err != nil {
		return "", err
	}
	lock, err := once.Lock(ctx, home+"/stand-in-"+string(f)+".lock")
	if err != nil {
		return "", fmt.Errorf("build image of %s: %w", f, err)
	}
	defer lock.Close()
	if _, err := engine.ImageInspect(ctx, standIn); err == nil {
		return standIn, nil
	}
	if err := buildStandIn(ctx, engine, f, standIn); err != nil {
		return "", fault.Wrap(err, fault.Precondition, "make a container registry or a Debian mirror reachable",
			"image %s cannot be pulled (%v), and a stand-in cannot be built", name, pullErr)
	}
	return standIn, nil
}

// ensureImage pulls an image unless the engine has it.
func ensureImage(ctx context.Context, engine *client.Client, name string) error {
	_, err := engine.ImageInspect(ctx, name)
	if err == nil || !errdefs.IsNotFound(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	pull, err := engine.ImagePull(ctx, name, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer pull.Close()
	return pull.Wait(ctx)
}
