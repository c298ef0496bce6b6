package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"replicator/mesh"
)

// metricsHandler answers /metrics. Every figure is read from the mesh when it is scraped; what is unknown is absent,
// never 0.
func metricsHandler(m Mesh, g *gate) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	loginFailures := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "replicator_http_login_failures_total", Help: "HTTP requests with a wrong user name or password.",
	}, func() float64 { return float64(g.failures.Load()) })
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		loginFailures, newCollector(m),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("bug: register metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{Timeout: statusTimeout}), nil
}

// linkFigure is one metric of a link; value is nil while it is unknown.
type linkFigure struct {
	name, help string
	kind       prometheus.ValueType
	value      func(mesh.LinkStatus) *float64
}

var linkFigures = []linkFigure{
	{
		"replicator_link_up", "1 when the link applies changes (running or catching_up).", prometheus.GaugeValue,
		func(l mesh.LinkStatus) *float64 { return truth(new(Applying(l.State))) },
	},
	{
		"replicator_link_lag_seconds", "Age of the oldest transaction not yet applied; 0 when there is none.",
		prometheus.GaugeValue, func(l mesh.LinkStatus) *float64 { return l.LagSeconds },
	},
	{
		"replicator_link_transactions_total", "Source transactions applied since the process started.",
		prometheus.CounterValue, func(l mesh.LinkStatus) *float64 { return count(l.Transactions) },
	},
	{
		"replicator_link_rows_total", "Row changes applied since the process started.",
		prometheus.CounterValue, func(l mesh.LinkStatus) *float64 { return count(l.Rows) },
	},
	{
		"replicator_link_lost_rows_total", "Row changes not applied because a concurrent later change won.",
		prometheus.CounterValue, func(l mesh.LinkStatus) *float64 { return count(l.LostRows) },
	},
	{
		"replicator_link_superseded_rows_total", "Row changes not applied because a change made on top of them came first.",
		prometheus.CounterValue, func(l mesh.LinkStatus) *float64 { return count(l.SupersededRows) },
	},
	{
		"replicator_link_overwritten_rows_total", "Rows of the target overwritten by a concurrent later change.",
		prometheus.CounterValue, func(l mesh.LinkStatus) *float64 { return count(l.OverwrittenRows) },
	},
	{
		"replicator_link_retries_total", "Times the link was tried again after a fault.",
		prometheus.CounterValue, func(l mesh.LinkStatus) *float64 { return count(l.Retries) },
	},
}

var linkStates = []mesh.LinkState{
	mesh.Starting, mesh.Running, mesh.CatchingUp, mesh.Retrying, mesh.Stopped, mesh.Standby,
}

// collector turns the mesh's status into metrics.
type collector struct {
	mesh                       Mesh
	links                      []*prometheus.Desc // as linkFigures
	linkState                  *prometheus.Desc
	reachable, skew, info      *prometheus.Desc
	conflicts, open, errorsOut *prometheus.Desc
	notices, noticesPending    *prometheus.Desc
	index, indexBytes          *prometheus.Desc
}

func newCollector(m Mesh) *collector {
	server, link := []string{"server"}, []string{"from", "to"}
	c := &collector{
		mesh: m,
		linkState: prometheus.NewDesc("replicator_link_state", "1 for the state the link is in.",
			[]string{"from", "to", "state"}, nil),
		reachable: prometheus.NewDesc("replicator_server_reachable", "1 when the server answers.", server, nil),
		skew: prometheus.NewDesc("replicator_server_clock_skew_seconds",
			"Clock of the server minus clock of the process.", server, nil),
		info: prometheus.NewDesc("replicator_server_info", "What the server is; always 1.",
			[]string{"server", "id", "flavor", "version", "endpoint"}, nil),
		index: prometheus.NewDesc("replicator_index_entries", "Entries of the server's change index, by where they are.",
			[]string{"server", "where"}, nil),
		indexBytes: prometheus.NewDesc("replicator_index_bytes", "Memory that the server's change index takes.", server, nil),
		conflicts:  prometheus.NewDesc("replicator_conflicts_total", "Rows that met a concurrent change.", nil, nil),
		open:       prometheus.NewDesc("replicator_conflicts_open", "Conflicts that nobody has acknowledged.", nil, nil),
		errorsOut:  prometheus.NewDesc("replicator_errors_open", "Transactions set aside.", nil, nil),
		notices: prometheus.NewDesc("replicator_notices_total", "Mails and webhook requests about conflicts, by what became of them.",
			[]string{"result"}, nil),
		noticesPending: prometheus.NewDesc("replicator_notices_pending", "Addresses that wait for a mail about conflicts.", nil, nil),
	}
	for _, f := range linkFigures {
		c.links = append(c.links, prometheus.NewDesc(f.name, f.help, link, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range append([]*prometheus.Desc{
		c.linkState, c.reachable, c.skew, c.info, c.conflicts, c.open, c.errorsOut, c.notices, c.noticesPending,
		c.index, c.indexBytes,
	}, c.links...) {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	s := c.mesh.Status(ctx)
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value *float64, labels ...string) {
		if value != nil {
			out <- prometheus.MustNewConstMetric(d, kind, *value, labels...)
		}
	}
	for _, server := range s.Servers {
		send(c.reachable, prometheus.GaugeValue, truth(server.Reachable), server.Name)
		send(c.skew, prometheus.GaugeValue, server.ClockSkewSeconds, server.Name)
		send(c.info, prometheus.GaugeValue, new(1.0), server.Name,
			text(server.ID), text(server.Flavor), text(server.Version), server.Endpoint)
		if x := server.Index; x != nil {
			send(c.index, prometheus.GaugeValue, count(&x.Entries), server.Name, "memory")
			send(c.index, prometheus.GaugeValue, count(&x.Spilled), server.Name, "spilled")
			send(c.indexBytes, prometheus.GaugeValue, count(&x.Bytes), server.Name)
		}
	}
	for _, l := range s.Links {
		for i, f := range linkFigures {
			send(c.links[i], f.kind, f.value(l), l.From, l.To)
		}
		for _, state := range linkStates {
			send(c.linkState, prometheus.GaugeValue, truth(new(state == l.State)), l.From, l.To, string(state))
		}
	}
	send(c.conflicts, prometheus.CounterValue, count(s.Conflicts.Total))
	send(c.open, prometheus.GaugeValue, count(s.Conflicts.Open))
	send(c.errorsOut, prometheus.GaugeValue, count(s.Errors.Open))
	if n := s.Notices; n != nil {
		send(c.notices, prometheus.CounterValue, count(&n.Sent), "sent")
		send(c.notices, prometheus.CounterValue, count(&n.Failed), "failed")
		send(c.notices, prometheus.CounterValue, count(&n.Refused), "refused")
		send(c.noticesPending, prometheus.GaugeValue, count(&n.Pending))
	}
}

func truth(b *bool) *float64 {
	switch {
	case b == nil:
		return nil
	case *b:
		return new(1.0)
	default:
		return new(0.0)
	}
}

func count(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
