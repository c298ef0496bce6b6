package config

import "fmt"

// refuseLater refuses what this version does not do: a setting that is accepted and ignored would be worse than none.
// Values equal to the documented default are accepted.
func (v *validator) refuseLater() {
	refuse := func(path string, used bool) {
		if used {
			v.problem(path, "leave it out", "not in this version")
		}
	}
	for _, s := range v.Servers {
		refuse("servers."+s.Name+".site", s.Site != "")
	}
	for i, r := range v.Tables.Rules {
		path := fmt.Sprintf("tables.rules[%d].", i)
		refuse(path+"exclude_columns", len(r.ExcludeColumns) > 0)
	}
	refuse("ddl", v.DDL == "replicate")
	refuse("on_error", v.OnError == "set-aside")
}
