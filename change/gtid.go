package change

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Flavor tells the two families of servers apart.
type Flavor uint8

// The flavors.
const (
	MySQL Flavor = iota + 1
	MariaDB
)

func (f Flavor) String() string {
	switch f {
	case MySQL:
		return "mysql"
	case MariaDB:
		return "mariadb"
	}
	return "unknown"
}

// GTID names one transaction in a server's binlog. MySQL uses UUID, Tag and Number ("uuid:n" or "uuid:tag:n"),
// MariaDB Domain, Server and Number ("domain-server-n"). It is comparable and can be a map key.
type GTID struct {
	UUID   [16]byte
	Tag    string
	Domain uint32
	Server uint32
	Number uint64
}

// IsZero reports whether the GTID is unset.
func (g GTID) IsZero() bool { return g == GTID{} }

func (g GTID) isMySQL() bool { return g.UUID != [16]byte{} }

func (g GTID) String() string {
	if !g.isMySQL() {
		return fmt.Sprintf("%d-%d-%d", g.Domain, g.Server, g.Number)
	}
	return sid{g.UUID, g.Tag}.String() + ":" + strconv.FormatUint(g.Number, 10)
}

// sid is what numbers a MySQL GTID: the UUID of the server, and a tag or "".
type sid struct {
	uuid [16]byte
	tag  string
}

func (s sid) String() string {
	h := hex.EncodeToString(s.uuid[:])
	text := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	if s.tag != "" {
		text += ":" + s.tag
	}
	return text
}

func (s sid) compare(o sid) int {
	if c := slices.Compare(s.uuid[:], o.uuid[:]); c != 0 {
		return c
	}
	return strings.Compare(s.tag, o.tag)
}

// interval is a run of transaction numbers, both ends included.
type interval struct{ first, last uint64 }

type lastInDomain struct {
	server uint32
	number uint64
}

// GTIDSet is a position in one server's history: on MySQL the set of all its executed GTIDs, on MariaDB the last GTID of
// every domain. The zero value is not usable: NewGTIDSet or ParseGTIDSet make one. It is not safe for concurrent use.
type GTIDSet struct {
	flavor  Flavor
	mysql   map[sid][]interval
	mariadb map[uint32]lastInDomain
}

// NewGTIDSet returns the empty set.
func NewGTIDSet(f Flavor) GTIDSet {
	return GTIDSet{flavor: f, mysql: map[sid][]interval{}, mariadb: map[uint32]lastInDomain{}}
}

// ParseGTIDSet reads a position as the server prints it: gtid_executed on MySQL, gtid_binlog_pos on MariaDB.
func ParseGTIDSet(f Flavor, text string) (GTIDSet, error) {
	s := NewGTIDSet(f)
	for part := range strings.SplitSeq(strings.Join(strings.Fields(text), ""), ",") {
		if part == "" {
			continue
		}
		var err error
		if f == MySQL {
			err = s.parseMySQL(part)
		} else {
			err = s.parseMariaDB(part)
		}
		if err != nil {
			return GTIDSet{}, fmt.Errorf("parse GTID set %q: %w", text, err)
		}
	}
	return s, nil
}

func (s GTIDSet) parseMySQL(part string) error {
	fields := strings.Split(part, ":")
	raw, err := hex.DecodeString(strings.ReplaceAll(fields[0], "-", ""))
	if err != nil || len(raw) != 16 {
		return fmt.Errorf("%q is not a UUID", fields[0])
	}
	id := sid{uuid: [16]byte(raw)}
	seen := false
	for _, f := range fields[1:] {
		if f == "" {
			return errors.New("an interval is empty")
		}
		if f[0] < '0' || f[0] > '9' {
			id.tag, seen = f, false
			continue
		}
		a, b, isRange := strings.Cut(f, "-")
		first, err := strconv.ParseUint(a, 10, 63)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(b, 10, 63)
		}
		if err != nil || first == 0 || last < first {
			return fmt.Errorf("%q is not an interval", f)
		}
		s.addInterval(id, interval{first, last})
		seen = true
	}
	if !seen {
		return fmt.Errorf("%q has no interval", part)
	}
	return nil
}

func (s GTIDSet) parseMariaDB(part string) error {
	fields := strings.Split(part, "-")
	if len(fields) != 3 {
		return fmt.Errorf("%q is not domain-server-number", part)
	}
	domain, err1 := strconv.ParseUint(fields[0], 10, 32)
	server, err2 := strconv.ParseUint(fields[1], 10, 32)
	number, err3 := strconv.ParseUint(fields[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("%q is not domain-server-number", part)
	}
	if _, twice := s.mariadb[uint32(domain)]; twice {
		return fmt.Errorf("domain %d appears twice", domain)
	}
	s.mariadb[uint32(domain)] = lastInDomain{uint32(server), number}
	return nil
}

// Flavor returns the flavor of the server whose position this is.
func (s GTIDSet) Flavor() Flavor { return s.flavor }

// IsEmpty reports whether the set holds no GTID.
func (s GTIDSet) IsEmpty() bool { return len(s.mysql) == 0 && len(s.mariadb) == 0 }

// Add puts one GTID into the set. On MariaDB it becomes the last of its domain.
func (s GTIDSet) Add(g GTID) {
	if s.flavor == MariaDB {
		s.mariadb[g.Domain] = lastInDomain{g.Server, g.Number}
		return
	}
	s.addInterval(sid{g.UUID, g.Tag}, interval{g.Number, g.Number})
}

func (s GTIDSet) addInterval(id sid, n interval) {
	list := s.mysql[id]
	if k := len(list); k > 0 && list[k-1].last+1 == n.first { // the usual case: the next number
		list[k-1].last = n.last
		return
	}
	i, _ := slices.BinarySearchFunc(list, n.first, func(v interval, first uint64) int {
		if v.last+1 < first {
			return -1
		}
		return 1
	})
	j := i
	for j < len(list) && list[j].first <= n.last+1 {
		n.first, n.last = min(n.first, list[j].first), max(n.last, list[j].last)
		j++
	}
	s.mysql[id] = slices.Replace(list, i, j, n)
}

// Contains reports whether the transaction is in the set. On MariaDB: whether its number is not above the last one of its
// domain.
func (s GTIDSet) Contains(g GTID) bool {
	if s.flavor == MariaDB {
		last, ok := s.mariadb[g.Domain]
		return ok && g.Number <= last.number
	}
	return s.containsInterval(sid{g.UUID, g.Tag}, interval{g.Number, g.Number})
}

func (s GTIDSet) containsInterval(id sid, n interval) bool {
	for _, v := range s.mysql[id] {
		if v.first <= n.first && n.last <= v.last {
			return true
		}
	}
	return false
}

// Covers reports whether every transaction of other is in s.
func (s GTIDSet) Covers(other GTIDSet) bool {
	for domain, last := range other.mariadb {
		mine, ok := s.mariadb[domain]
		if !ok || mine.number < last.number {
			return false
		}
	}
	for id, list := range other.mysql {
		for _, n := range list {
			if !s.containsInterval(id, n) {
				return false
			}
		}
	}
	return true
}

// Clone returns an independent copy.
func (s GTIDSet) Clone() GTIDSet {
	c := GTIDSet{flavor: s.flavor, mysql: make(map[sid][]interval, len(s.mysql)), mariadb: maps.Clone(s.mariadb)}
	for id, list := range s.mysql {
		c.mysql[id] = slices.Clone(list)
	}
	return c
}

// String prints the set as its server would, in a fixed order.
func (s GTIDSet) String() string {
	var b strings.Builder
	for _, domain := range slices.Sorted(maps.Keys(s.mariadb)) {
		last := s.mariadb[domain]
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d-%d-%d", domain, last.server, last.number)
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.mysql), sid.compare) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(id.String())
		for _, n := range s.mysql[id] {
			fmt.Fprintf(&b, ":%d", n.first)
			if n.last > n.first {
				fmt.Fprintf(&b, "-%d", n.last)
			}
		}
	}
	return b.String()
}
