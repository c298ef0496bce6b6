package sandbox_test

import (
	"testing"

	"replicator/sandbox"
)

func TestServerAnswers(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			var version, format, image, metadata string
			err := s.DB().QueryRowContext(t.Context(),
				"SELECT version(), @@binlog_format, @@binlog_row_image, @@binlog_row_metadata").Scan(&version, &format, &image, &metadata)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(version, format, image, metadata)
		})
	}
}
