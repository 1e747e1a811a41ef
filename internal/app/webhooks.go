package app

import (
	"context"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/reload"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// webhook is the sender of a webhook and its secrets.
type webhook struct {
	partner string
	store   webhooks.Store
	sender  *webhooks.Sender
	secrets *reload.Value[[][]byte]
}

// newWebhooks builds the senders of all webhooks. The engines must have been built.
func (a *App) newWebhooks(registry prometheus.Registerer) error {
	metrics, err := webhooks.NewMetrics(registry)
	if err != nil {
		return err
	}
	memory := webhooks.NewMemory()
	for _, cfg := range a.cfg.Webhooks {
		w, err := a.newWebhook(cfg, metrics, memory)
		if err != nil {
			return fmt.Errorf("webhook %s: %w", cfg.Name, err)
		}
		a.webhooks = append(a.webhooks, w)
	}
	return nil
}

func (a *App) newWebhook(cfg config.Webhook, metrics *webhooks.Metrics, memory *webhooks.Memory) (w webhook, err error) {
	engine, err := a.engineOf(cfg.Partner)
	if err != nil {
		return w, err
	}
	w.partner = engine.partner.Name
	logger := engine.logger.Named("webhooks")
	w.secrets, err = reload.Open(reload.Config[[][]byte]{
		Name:   "secret of webhook " + cfg.Name,
		Files:  []string{cfg.SecretFile},
		Parse:  func(contents [][]byte) ([][]byte, error) { return config.ParseWebhookSecrets(contents[0]) },
		Logger: logger,
		Failed: func() { metrics.SecretNotReloaded(cfg.Name) },
	})
	if err != nil {
		return w, err
	}
	w.store = memory
	if a.connections != nil {
		if w.store, err = cache.NewWebhooks(PartnerRedisConfig(a.cfg, engine.partner), a.connections, logger); err != nil {
			return w, err
		}
	}
	source := "/eligibilityd/" + namespace(engine.partner)
	w.sender = webhooks.New(webhooks.Config{
		Name: cfg.Name, URL: cfg.URL, Segment: WebhookSegment(cfg.Segment), OnlyUnblocked: cfg.Only == config.WebhookUnblocked, AllowPrivate: cfg.AllowPrivate,
		Secrets: w.secrets.Get,
		Follow: func(ctx context.Context, start changes.Start) (webhooks.Cursor, error) {
			return engine.changes.Follow(ctx, start)
		},
		Compare: func(ctx context.Context, change *changes.Change, segment eligibility.Segment) evidence.Comparison {
			return engine.service.Compare(ctx, change.Key, change.Before, change.After, segment)
		},
		AppendEvent: func(b []byte, change *changes.Change) []byte { return change.AppendJSON(b, source) },
		AppendAnswer: func(b []byte, id eligibility.CustomerID, answer *eligibility.Answer) []byte {
			return (&api.CheckReply{CustomerID: id, Answer: *answer}).AppendJSON(b)
		},
		Store: w.store, Host: host(), Grace: a.cfg.Server.ShutdownTimeout, Metrics: metrics, Logger: logger,
	})
	return w, nil
}

// engineOf returns the engine of a partner; "" means the default.
func (a *App) engineOf(partner string) (*engine, error) {
	if partner == "" {
		partner = a.cfg.DefaultPartner
	}
	for _, e := range a.engines {
		if e.partner.Name == partner {
			return e, nil
		}
	}
	return nil, fmt.Errorf("no partner %q", partner)
}

// WebhookSegment converts the segment of a webhook.
func WebhookSegment(segment config.WebhookSegment) eligibility.Segment {
	switch segment {
	case config.WebhookEducation:
		return eligibility.SegmentEducation
	case config.WebhookGovernment:
		return eligibility.SegmentGovernment
	case config.WebhookNonprofit:
		return eligibility.SegmentNonprofit
	default:
		return eligibility.SegmentCommercial
	}
}

// host names the machine.
func host() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
