package server

import (
	"context"
	"slices"
	"strings"

	"replicator/change"
)

// Referencing names the tables with a foreign key to a table, in order. The account sees those that it has a privilege on.
func Referencing(ctx context.Context, q Querier, parent change.TableName) ([]change.TableName, error) {
	rows, err := q.QueryContext(ctx, `SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE
 WHERE REFERENCED_TABLE_SCHEMA = ? AND REFERENCED_TABLE_NAME = ?`, parent.Database, parent.Table)
	if err != nil {
		return nil, Fault(err, "look for references to "+parent.String())
	}
	defer rows.Close()
	var children []change.TableName
	for rows.Next() {
		var name change.TableName
		if err := rows.Scan(&name.Database, &name.Table); err != nil {
			return nil, Fault(err, "look for references to "+parent.String())
		}
		children = append(children, name)
	}
	slices.SortFunc(children, func(a, b change.TableName) int { return strings.Compare(a.String(), b.String()) })
	return children, rows.Err()
}
