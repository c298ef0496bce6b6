package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

const (
	fetchTimeout = 10 * time.Minute
	serverPort   = "3306"
)

// containerHost runs a server as a container whose port is published on 127.0.0.1.
type containerHost struct {
	engine    *client.Client
	container *testcontainers.DockerContainer
	done      chan struct{}
	networks  []string // those it was taken off by disconnect
}

func startContainer(ctx context.Context, o Options) (*Server, error) {
	image, err := Image(ctx, o.Flavor)
	if err != nil {
		return nil, err
	}
	p, err := reservePort(ctx)
	if err != nil {
		return nil, err
	}
	engine, err := dockerEngine(ctx)
	if err != nil {
		return nil, errors.Join(err, p.release())
	}
	h := &containerHost{engine: engine}
	s := &Server{name: o.Name, flavor: o.Flavor, host: h, port: p, password: rand.Text()}
	s.close = sync.OnceValue(s.remove)
	if err := h.create(ctx, image, p.number, s.password, serverArgs(o.Flavor, o, randomID())); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (h *containerHost) create(ctx context.Context, image string, port int, password string, args []string) error {
	run, err := runFolder()
	if err != nil {
		return err
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	inside := network.MustParsePort(serverPort + "/tcp")
	h.container, err = testcontainers.Run(ctx, image,
		testcontainers.WithNoStart(),
		testcontainers.WithExposedPorts(inside.String()),
		testcontainers.WithCmd(args...),
		testcontainers.WithLabels(map[string]string{runLabel: run}),
		testcontainers.WithEnv(map[string]string{"MYSQL_ROOT_PASSWORD": password, "MARIADB_ROOT_PASSWORD": password}),
		testcontainers.WithHostConfigModifier(func(c *container.HostConfig) {
			c.PortBindings = network.PortMap{inside: {{HostIP: loopback, HostPort: strconv.Itoa(port)}}}
		}),
	)
	if err != nil {
		return fmt.Errorf("create container of %s: %w", image, err)
	}
	return nil
}

func (h *containerHost) id() string { return h.container.GetContainerID() }

func (h *containerHost) start(ctx context.Context) error {
	// The engine is asked directly: testcontainers' own start waits for things that a server started again need not do.
	if _, err := h.engine.ContainerStart(ctx, h.id(), client.ContainerStartOptions{}); err != nil {
		return err
	}
	done := make(chan struct{})
	h.done = done
	// The wait outlives the call.
	wait := h.engine.ContainerWait(context.WithoutCancel(ctx), h.id(), client.ContainerWaitOptions{})
	go func() {
		defer close(done)
		select {
		case <-wait.Result:
		case <-wait.Error: //nolint:errcheck // an engine that lost the container has ended it too
		}
	}()
	return nil
}

func (h *containerHost) ended() <-chan struct{} { return h.done }

func (h *containerHost) stop(ctx context.Context) error {
	seconds := int(stopGrace.Seconds())
	_, err := h.engine.ContainerStop(ctx, h.id(), client.ContainerStopOptions{Timeout: &seconds})
	return err
}

func (h *containerHost) kill(ctx context.Context) error {
	if _, err := h.engine.ContainerKill(ctx, h.id(), client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return err
	}
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *containerHost) pause(ctx context.Context) error {
	_, err := h.engine.ContainerPause(ctx, h.id(), client.ContainerPauseOptions{})
	return err
}

func (h *containerHost) resume(ctx context.Context) error {
	_, err := h.engine.ContainerUnpause(ctx, h.id(), client.ContainerUnpauseOptions{})
	return err
}

func (h *containerHost) log(ctx context.Context) string {
	logs, err := h.engine.ContainerLogs(ctx, h.id(), client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "30"})
	if err != nil {
		return err.Error()
	}
	defer logs.Close()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, logs); err != nil {
		return err.Error()
	}
	return tail(text.Bytes())
}

func (h *containerHost) remove(ctx context.Context) error {
	if h.container == nil { // it was never made
		return h.engine.Close()
	}
	_, err := h.engine.ContainerRemove(ctx, h.id(), client.ContainerRemoveOptions{RemoveVolumes: true, Force: true})
	return errors.Join(err, h.engine.Close())
}

// Disconnect takes a container off its networks: connections through Addr end, new ones are refused, connections to
// ContainerAddr fall silent. For servers that are processes, use a Proxy.
func (s *Server) Disconnect(ctx context.Context) error {
	h, ok := s.host.(*containerHost)
	if !ok {
		return fmt.Errorf("disconnect server %s: not a container: %w", s.name, errors.ErrUnsupported)
	}
	info, err := h.engine.ContainerInspect(ctx, h.id(), client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("disconnect server %s: %w", s.name, err)
	}
	for name := range info.Container.NetworkSettings.Networks {
		if _, err := h.engine.NetworkDisconnect(ctx, name, client.NetworkDisconnectOptions{Container: h.id()}); err != nil {
			return fmt.Errorf("disconnect server %s from network %s: %w", s.name, name, err)
		}
		h.networks = append(h.networks, name)
	}
	return nil
}

// Reconnect undoes Disconnect; Addr stays, ContainerAddr may change.
func (s *Server) Reconnect(ctx context.Context) error {
	h, ok := s.host.(*containerHost)
	if !ok {
		return fmt.Errorf("reconnect server %s: not a container: %w", s.name, errors.ErrUnsupported)
	}
	for _, name := range slices.Clone(h.networks) {
		if _, err := h.engine.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: h.id()}); err != nil {
			return fmt.Errorf("reconnect server %s to network %s: %w", s.name, name, err)
		}
		h.networks = h.networks[1:]
	}
	return nil
}

// ContainerAddr is the server's address on its container network, without the engine's proxy in between.
func (s *Server) ContainerAddr(ctx context.Context) (string, error) {
	h, ok := s.host.(*containerHost)
	if !ok {
		return "", fmt.Errorf("find container of server %s: %w", s.name, errors.ErrUnsupported)
	}
	info, err := h.engine.ContainerInspect(ctx, h.id(), client.ContainerInspectOptions{})
	if err != nil {
		return "", fmt.Errorf("find container of server %s: %w", s.name, err)
	}
	for _, n := range info.Container.NetworkSettings.Networks {
		if n.IPAddress.IsValid() {
			return net.JoinHostPort(n.IPAddress.String(), serverPort), nil
		}
	}
	return "", fmt.Errorf("find container of server %s: it is on no network", s.name)
}
