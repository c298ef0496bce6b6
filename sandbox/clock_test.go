package sandbox_test

import (
	"testing"
	"time"

	"replicator/sandbox"
)

func TestOwnClock(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor, OwnClock: true})
			for _, ahead := range []time.Duration{0, 10 * time.Minute, -time.Hour} {
				if err := s.SetClock(ahead); err != nil {
					t.Fatal(err)
				}
				deadline := time.Now().Add(40 * time.Second)
				for {
					var now float64
					if err := s.DB().QueryRow("SELECT UNIX_TIMESTAMP(NOW(6))").Scan(&now); err != nil {
						t.Fatal(err)
					}
					shown := time.Until(time.UnixMicro(int64(now * 1e6)))
					if (shown - ahead).Abs() < time.Second {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("the clock is %s ahead, want %s", shown, ahead)
					}
					<-time.After(50 * time.Millisecond)
				}
			}
		})
	}
}
