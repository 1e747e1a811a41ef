package app

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/reload"
)

// decisions is the decision log and the key of its hashes. The zero value is none.
type decisions struct {
	log *decisionlog.Log      // nil if there is none
	key *reload.Value[[]byte] // nil if nothing is hashed
}

// newDecisions builds the decision log, if the configuration names a file.
func (a *App) newDecisions(build Build, registry prometheus.Registerer) error {
	cfg := a.cfg.DecisionLog
	if cfg.File == "" {
		return nil
	}
	logger := a.logger.Named("decisions")
	log := decisionsConfig(cfg, build, logger, registry)
	var err error
	if cfg.CustomerIDs == config.CustomerIDsHashed {
		a.decisions.key, err = reload.Open(reload.Config[[]byte]{
			Name: "hash key of the decision log", Files: []string{cfg.HashKeyFile}, Logger: logger,
			Parse:  func(contents [][]byte) ([]byte, error) { return config.ParseHashKey(contents[0]) },
			Failed: func() { a.decisions.log.KeyNotReloaded() }, // not before run
		})
		if err != nil {
			return err
		}
		log.HashKey = a.decisions.key.Get
	}
	a.decisions.log, err = decisionlog.New(log)
	return err
}

// decisionsConfig is the configuration of the decision log but for the key of its
// hashes.
func decisionsConfig(cfg config.DecisionLog, build Build, logger *zap.Logger, registry prometheus.Registerer) decisionlog.Config {
	return decisionlog.Config{
		File: cfg.File, MaxBytes: int64(cfg.MaxBytes), MaxFiles: cfg.MaxFiles, AllowedSample: cfg.AllowedSample,
		Block: cfg.OnOverflow == config.OverflowBlock, Version: build.Version, Logger: logger, Registerer: registry,
	}
}

// policies returns the partners' policies as the decision log states them.
func (a *App) policies() map[string]*decisionlog.Policy {
	policies := make(map[string]*decisionlog.Policy, len(a.engines))
	for _, engine := range a.engines {
		cfg := ServiceConfig(a.cfg, engine.partner, engine.logger, nil)
		policies[engine.partner.Name] = decisionlog.NewPolicy(cfg.Policy, cfg.Ages)
	}
	return policies
}

// run starts writing, and reading the key again until ctx ends.
func (d *decisions) run(ctx context.Context, loops *errgroup.Group) {
	if d.log != nil {
		go d.log.Run() // until flush
	}
	if d.key != nil {
		loops.Go(func() error { return d.key.Run(ctx) })
	}
}

// reload opens the file again, which somebody may have renamed, and reads the key.
func (d *decisions) reload() {
	if d.log != nil {
		d.log.Reopen()
	}
	if d.key != nil {
		d.key.Reload()
	}
}

// flush writes all records that wait, within ctx. All calls have ended.
func (d *decisions) flush(ctx context.Context, logger *zap.Logger) {
	if d.log == nil {
		return
	}
	if err := d.log.Close(ctx); err != nil {
		logger.Error("records of the decision log are lost", zap.Error(err))
	}
}
