package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Prepare gets everything that servers of all flavors need: the servers' programs and data to copy, the tools that Options
// and Sysbench may ask for, and container images where a Docker engine answers. What is there already is left alone, and
// whoever needs something meanwhile waits for it. Prepare goes on past what it cannot get, and returns why.
func Prepare(ctx context.Context) error {
	var programs, containers error
	var wg sync.WaitGroup
	wg.Go(func() { programs = preparePrograms(ctx) })
	wg.Go(func() { containers = prepareImages(ctx) })
	wg.Wait()
	return errors.Join(programs, containers)
}

func preparePrograms(ctx context.Context) error {
	var errs []error
	for _, f := range Flavors {
		for _, way := range candidates(f) {
			i, err := way(ctx)
			if err == nil {
				_, err = i.template(ctx)
			}
			if err == nil {
				break
			}
			errs = append(errs, fmt.Errorf("prepare %s: %w", f, err))
		}
	}
	_, err := faketimeLibrary(ctx)
	errs = append(errs, err)
	_, err = treeOf(ctx, "sysbench", sysbenchTree)
	return errors.Join(append(errs, err)...)
}

// prepareImages leaves out MariaDB 10.11, of which nothing is run as a container.
func prepareImages(ctx context.Context) error {
	if err := HasDocker(ctx); err != nil {
		return err
	}
	var errs []error
	for _, f := range []Flavor{MySQL97, MariaDB118} {
		_, err := Image(ctx, f)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
