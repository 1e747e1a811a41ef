package app

import "github.com/eligibilityd/eligibilityd/internal/health"

// components returns what the service depends on and is configured to use, each with
// how it fares.
func (a *App) components() []health.Source {
	var all []health.Source
	for _, e := range a.engines {
		if e.client != nil {
			all = append(all,
				health.Source{Name: "partner_center", Partner: e.partner.Name, Read: e.client.Health},
				health.Source{Name: "login", Partner: e.partner.Name, Read: e.client.LoginHealth})
		}
		all = append(all, health.Source{Name: "feed", Partner: e.partner.Name, Read: e.changes.Health})
	}
	if a.connections != nil {
		all = append(all, health.Source{Name: "redis", Read: a.redisHealth})
	}
	for i, w := range a.webhooks {
		all = append(all, health.Source{Name: "webhook", Partner: w.partner, Webhook: a.cfg.Webhooks[i].Name, Read: w.sender.Health})
	}
	if a.decisions.log != nil {
		all = append(all, health.Source{Name: "decision_log", Read: a.decisions.log.Health})
	}
	if a.traces != nil {
		all = append(all, health.Source{Name: "traces", Read: a.traces.Health})
	}
	if a.metrics != nil {
		all = append(all, health.Source{Name: "metrics", Read: a.metrics.Health})
	}
	if a.access != nil {
		all = append(all, a.access.Components()...)
	}
	return all
}

// redisHealth returns how Redis fares for the partner for whom it fares worst, since each
// has circuit breakers of its own, and the identity of the connections.
func (a *App) redisHealth() health.Condition {
	of := make([]health.Condition, len(a.engines), len(a.engines)+1)
	for i, e := range a.engines {
		of[i] = e.store.RedisHealth()
	}
	return health.Worst(of[0], append(of[1:], a.connections.TokenHealth())...)
}
