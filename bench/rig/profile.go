package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
)

// Profile profiles s for the next seconds and writes to dir: NAME.cpu.pprof,
// and NAME.allocs.pprof for the allocations of the same time.
func Profile(ctx context.Context, s Server, seconds int, dir, name string) error {
	group, ctx := errgroup.WithContext(ctx)
	for kind, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
		group.Go(func() error {
			profile, err := get(ctx, "http://"+s.Admin+"/debug/pprof/"+path+"?seconds="+strconv.Itoa(seconds))
			if err != nil {
				return fmt.Errorf("profile: %w", err)
			}
			return os.WriteFile(filepath.Join(dir, name+"."+kind+".pprof"), profile, 0o600)
		})
	}
	return group.Wait()
}
