package config

import "fmt"

// refuseLater refuses what this version does not do: a setting that is accepted and ignored would be worse than none.
// Values equal to the documented default are accepted.
func (v *validator) refuseLater() {
	d := defaults()
	refuse := func(path string, used bool) {
		if used {
			v.problem(path, "leave it out", "not in this version")
		}
	}
	for _, s := range v.Servers {
		refuse("servers."+s.Name+".contact", len(s.Contact) > 0)
		refuse("servers."+s.Name+".site", s.Site != "")
	}
	for i, r := range v.Tables.Rules {
		path := fmt.Sprintf("tables.rules[%d].", i)
		refuse(path+"exclude_columns", len(r.ExcludeColumns) > 0)
		refuse(path+"time_column", r.TimeColumn != "")
		if c := r.Conflict; c != nil {
			refuse(path+"conflict.policy", c.Policy != "" && c.Policy != LastWriterWins)
			refuse(path+"conflict.add", len(c.Add) > 0)
			refuse(path+"conflict.mute", c.Mute)
			refuse(path+"conflict.redact", len(c.Redact) > 0)
		}
	}
	refuse("conflict.policy", v.Conflict.Policy != d.Conflict.Policy)
	refuse("conflict.priority", len(v.Conflict.Priority) > 0)
	refuse("conflict.change_log", v.Conflict.ChangeLog != nil)
	refuse("conflict.users", v.Conflict.Users != nil)
	refuse("journal.keep", v.Journal.Keep != d.Journal.Keep)
	refuse("journal.max_rows", v.Journal.MaxRows != d.Journal.MaxRows)
	refuse("journal.max_value", v.Journal.MaxValue != d.Journal.MaxValue)
	refuse("ddl", v.DDL == "replicate")
	refuse("on_error", v.OnError == "set-aside")
	smtp := v.Notify.SMTP
	refuse("notify.smtp.address", smtp.Address != "")
	refuse("notify.smtp.from", smtp.From != "")
	refuse("notify.smtp.username", smtp.Username != "")
	refuse("notify.smtp.password", !smtp.Password.IsZero())
	refuse("notify.smtp.tls", smtp.TLS != d.Notify.SMTP.TLS)
	refuse("notify.webhook.url", v.Notify.Webhook.URL != "")
	refuse("notify.webhook.secret", !v.Notify.Webhook.Secret.IsZero())
	refuse("http.pprof", v.HTTP.Pprof)
	refuse("apply.workers", v.Apply.Workers != d.Apply.Workers)
	refuse("apply.compress", v.Apply.Compress)
	refuse("verify.every", v.Verify.Every != 0)
}
