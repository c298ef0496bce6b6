package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// SavePolicies records by what the owner of a server decides conflicts from now on.
func SavePolicies(ctx context.Context, q Querier, policies string) error {
	_, err := q.ExecContext(ctx, `INSERT INTO replicator.policies (singleton, policies, since) VALUES (1, ?, UTC_TIMESTAMP(6))
 ON DUPLICATE KEY UPDATE policies = VALUES(policies), since = VALUES(since)`, policies)
	if err != nil {
		return fmt.Errorf("record the conflict policies: %w", err)
	}
	return nil
}

// LoadPolicies reads what the owner of a server recorded last; found is false when none has yet.
func LoadPolicies(ctx context.Context, q Querier) (policies string, found bool, err error) {
	err = q.QueryRowContext(ctx, "SELECT policies FROM replicator.policies WHERE singleton = 1").Scan(&policies)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("read the recorded conflict policies: %w", err)
	}
	return policies, true, nil
}
