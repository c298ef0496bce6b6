package canal

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
)

// request asks a server for its binlog, as a replica does: with variables of the session, COM_REGISTER_SLAVE and a dump
// command. Sources: MySQL's sql/rpl_replica.cc and rpl_source.cc, MariaDB's sql/slave.cc and sql_repl.cc.
type request struct {
	conn      *client.Conn
	replicaID uint32
	opts      *Options
}

// dump has been answered by the first event, or by an error in its place.
func (r *request) dump(behind mysql.GTIDSet) error {
	id := change.NewServerID() // the server takes readers with one UUID for one
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	settings := []string{
		// Events have the checksums with which they were written in any case. The server asks because there were replicas
		// that could not skip them.
		"SET @master_binlog_checksum = 'NONE', @source_binlog_checksum = 'NONE'",
		fmt.Sprintf("SET @master_heartbeat_period = %d, @source_heartbeat_period = %[1]d", r.opts.HeartbeatPeriod.Nanoseconds()),
		fmt.Sprintf("SET @slave_uuid = '%s', @replica_uuid = '%[1]s'", uuid),
	}
	if r.opts.Flavor == change.MariaDB {
		settings = append(settings, "SET @mariadb_slave_capability = 4", // it knows GTIDs
			fmt.Sprintf("SET @slave_connect_state = '%s', @slave_gtid_strict_mode = 1", behind))
	}
	for _, s := range settings {
		if _, err := r.conn.Execute(s); err != nil {
			return fmt.Errorf("prepare the dump: %w", err)
		}
	}
	if err := r.register(); err != nil {
		return fmt.Errorf("register as a replica: %w", err)
	}
	if r.opts.Flavor == change.MariaDB {
		return r.command(mysql.COM_BINLOG_DUMP, r.byFile())
	}
	return r.command(mysql.COM_BINLOG_DUMP_GTID, r.byGTID(behind))
}

func (r *request) command(kind byte, body []byte) error {
	r.conn.ResetSequence()
	return r.conn.WritePacket(append([]byte{0, 0, 0, 0, kind}, body...))
}

// register lets SHOW REPLICAS show who reads.
func (r *request) register() error {
	host, _ := os.Hostname()
	b := binary.LittleEndian.AppendUint32(nil, r.replicaID)
	for _, text := range []string{host, r.opts.User, ""} { // "": a password
		text = text[:min(len(text), 255)]
		b = append(append(b, byte(len(text))), text...)
	}
	b = binary.LittleEndian.AppendUint16(b, 0) // port
	b = binary.LittleEndian.AppendUint32(b, 0) // rank
	b = binary.LittleEndian.AppendUint32(b, 0) // server_id of the source
	if err := r.command(mysql.COM_REGISTER_SLAVE, b); err != nil {
		return err
	}
	_, err := r.conn.ReadOKPacket()
	return err
}

// byFile is the body of MariaDB's command; @slave_connect_state takes the place of file and offset.
func (r *request) byFile() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0) // offset
	b = binary.LittleEndian.AppendUint16(b, 0)    // flags
	return binary.LittleEndian.AppendUint32(b, r.replicaID)
}

func (r *request) byGTID(behind mysql.GTIDSet) []byte {
	set := behind.Encode()
	b := binary.LittleEndian.AppendUint16(nil, 0) // flags
	b = binary.LittleEndian.AppendUint32(b, r.replicaID)
	b = binary.LittleEndian.AppendUint32(b, 0) // length of the file's name
	b = binary.LittleEndian.AppendUint64(b, 4) // offset
	b = binary.LittleEndian.AppendUint32(b, uint32(len(set)))
	return append(b, set...)
}
