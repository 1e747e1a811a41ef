package app

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

// engine is what answers for one partner. It shares nothing with the engines of
// other partners but the connections to Redis: not tokens, not the budget, not
// circuit breakers, not evidence.
type engine struct {
	partner config.Partner
	logger  *zap.Logger
	store   *cache.Store
	changes *changes.Log
	budget  *budget.Budget // nil if the source was replaced, as is the client
	client  *pcclient.Client
	service *evidence.Service
	reviews *reviews.Loop // nil without reviews, as is the list
	list    reviews.List
}

// newEngine builds the engine of a partner. Its metrics and log records carry the
// partner's name. If it fails, close releases the parts that were built.
func (a *App) newEngine(partner config.Partner, build Build, registry prometheus.Registerer, replace Replacements) (*engine, error) {
	registerer := prometheus.WrapRegistererWith(prometheus.Labels{"partner": partner.Name}, registry)
	e := &engine{partner: partner, logger: a.logger.With(zap.String("partner", partner.Name))}
	storeConfig := cacheConfig(a.cfg, partner, e.logger, registerer)
	storeConfig.Connections, storeConfig.Now = a.connections, replace.Now
	var err error
	if e.store, err = cache.New(storeConfig); err != nil {
		return e, err
	}
	if e.changes, err = changes.NewLog(e.store.Feed(), changes.LogConfig{Registerer: registerer}); err != nil {
		return e, err
	}
	var source evidence.Source
	if replace.Source != nil {
		source = replace.Source(partner.Name)
	} else {
		if e.budget, err = budget.New(budgetConfig(a.cfg, partner, build, e.store, registerer)); err != nil {
			return e, err
		}
		clientConfig := ClientConfig(partner.PartnerCenter, e.logger, registerer)
		clientConfig.Budget = e.budget
		if e.client, err = pcclient.New(clientConfig); err != nil {
			return e, err
		}
		source = pcclient.NewSource(e.client)
	}
	serviceConfig := ServiceConfig(a.cfg, partner, e.logger, registerer)
	serviceConfig.Now = replace.Now
	if e.service, err = evidence.New(source, e.store, serviceConfig); err != nil {
		return e, err
	}
	if e.list = e.store.Reviews(); e.list != nil {
		e.reviews, err = reviews.New(e.service, e.list, reviews.Config{
			GiveUpAfter: a.cfg.Reviews.GiveUpAfter, Logger: e.logger.Named("reviews"), Registerer: registerer,
		})
	}
	return e, err
}

// flush stores what Redis has not stored yet.
func (e *engine) flush(ctx context.Context) {
	if left := e.store.Flush(ctx); left > 0 {
		e.logger.Warn("evidence is lost with this process: redis did not store it", zap.Int("entries", left))
	}
}

func (e *engine) close() error {
	if e.client != nil {
		e.client.Close()
	}
	if e.store == nil {
		return nil
	}
	return e.store.Close()
}

// run starts what the engine does beside answering: fetches and reviews, which end with
// fetching, and loops, which end with looping.
func (e *engine) run(fetching, looping context.Context, fetches, loops *errgroup.Group) {
	fetches.Go(func() error { return e.service.Run(fetching) })
	if e.reviews != nil {
		fetches.Go(func() error { return e.reviews.Run(fetching) })
	}
	loops.Go(func() error { return e.store.Run(looping) })
	loops.Go(func() error { return e.changes.Run(looping) })
	if e.budget != nil {
		loops.Go(func() error {
			e.budget.Run(looping)
			return nil
		})
	}
}

// awaitToken waits until connections to Redis were tried and the first token has
// come, or until ctx ends.
func (e *engine) awaitToken(ctx context.Context) {
	select {
	case <-e.store.Connected():
	case <-ctx.Done():
	}
	if e.client == nil {
		return
	}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		err := e.client.Token(ctx)
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return // Run is stopping
			}
			e.logger.Warn("no token from the login host yet; callers are answered from the cache until there is one", zap.Error(err))
			return
		}
	}
}

// checkCredential is App.CheckVaults for the client secret or certificate of one
// partner.
func (e *engine) checkCredential(ctx context.Context) error {
	if e.client == nil {
		return nil
	}
	err := e.client.CheckCredential(ctx)
	var fail *pcclient.APIError
	if errors.As(err, &fail) && fail.Class == pcclient.ClassCredentials && !errors.Is(err, identity.ErrRefused) {
		return err
	}
	if err != nil {
		e.logger.Error("vault of the client secret or certificate cannot be asked yet; callers are answered from the cache until it can", zap.Error(err))
	}
	return nil
}

// checkRefreshToken is App.CheckVaults for the refresh token of one partner.
func (e *engine) checkRefreshToken(ctx context.Context) error {
	if e.client == nil || e.partner.Flow != config.FlowAppUser || e.partner.RefreshTokenVault.IsZero() {
		return nil
	}
	_, err := e.client.RefreshToken(ctx)
	if err == nil || errors.Is(err, tokenstore.ErrNone) || errors.Is(err, tokenstore.ErrUnreadable) {
		return err
	}
	e.logger.Error("vault of the refresh token cannot be asked yet; callers are answered from the cache until it can", zap.Error(err))
	return nil
}
