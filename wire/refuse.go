package wire

import (
	"strings"

	"replicator/fault"
)

// Choose returns the first of the wanted algorithms that the server offers.
func Choose(server string, g Greeting, wanted []Algorithm) (Algorithm, error) {
	names := make([]string, len(wanted))
	for i, a := range wanted {
		if g.Offers(a) {
			return a, nil
		}
		names[i] = string(a)
	}
	version, _ := g.Version()
	remedy := "add " + names[len(names)-1] + " to protocol_compression_algorithms on the server, or change servers." + server +
		".compress (false: no compression)"
	if strings.Contains(version, "MariaDB") {
		remedy = "set servers." + server + ".compress to true, zlib or false: MariaDB compresses connections with zlib alone"
	}
	return None, fault.New(fault.Configuration, remedy, "%s (%s) does not offer to compress connections with %s",
		server, version, strings.Join(names, " or "))
}
