// Command fetch gets the servers that tests run on, so that the tests that need them do not have to wait. It tells what it
// cannot get; the tests say whether that matters.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"replicator/sandbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	if err := sandbox.Prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
	}
}
