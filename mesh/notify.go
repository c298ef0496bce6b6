package mesh

import (
	"go.uber.org/zap"

	"replicator/notify"
)

// NoticeStatus counts what this process has told of conflicts since it started.
type NoticeStatus struct {
	Sent    int64 `json:"sent"`    // mails and requests to the webhook that were accepted
	Failed  int64 `json:"failed"`  // attempts that were not
	Refused int64 `json:"refused"` // mails given up because their recipient is refused
	Pending int64 `json:"pending"` // addresses, and the webhook, that wait for what is to be told
}

// newDesk makes what tells both parties of conflicts; nil where nobody is told.
func (m *Mesh) newDesk() (*notify.Desk, error) {
	log := m.log.Named("notify")
	n := m.config.Notify
	for _, s := range m.config.Servers {
		if len(s.Contact) > 0 && n.SMTP.Address == "" {
			log.Warn("the contacts of a server get no mail: notify.smtp.address is not set", zap.String("server", s.Name))
		}
	}
	return notify.New(notify.Options{Config: m.config, Servers: m.addressees, Owner: m.owner, Log: log})
}

// addressees are the servers with their contacts, as far as they are known now.
func (m *Mesh) addressees() []notify.Server {
	servers := make([]notify.Server, len(m.members))
	for i, x := range m.members {
		servers[i] = notify.Server{Name: x.config.Name, DB: x.server.DB(), Contact: x.config.Contact}
		if p := x.profile(); p != nil {
			servers[i].ID = p.identity.ID
		}
	}
	return servers
}

func (m *Mesh) notices() *NoticeStatus {
	if m.desk == nil {
		return nil
	}
	s := &m.desk.Stats
	return &NoticeStatus{Sent: s.Sent.Load(), Failed: s.Failed.Load(), Refused: s.Refused.Load(), Pending: s.Pending.Load()}
}
