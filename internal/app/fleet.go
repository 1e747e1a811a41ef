package app

import (
	"context"
	"errors"
	"math"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/console"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// fleetWithin bounds the reading of a console.Fleet.
const fleetWithin = time.Second

// fleetReader reads what the fleet page of the console shows: numbers from the metrics,
// if they are there, and the rest from the parts of the App. It is safe for concurrent
// use.
type fleetReader struct {
	app      *App
	build    Build
	gatherer prometheus.Gatherer
	// gathering holds a value while the metrics are read.
	gathering chan struct{}
}

func (a *App) newFleetReader(build Build, gatherer prometheus.Gatherer) *fleetReader {
	return &fleetReader{app: a, build: build, gatherer: gatherer, gathering: make(chan struct{}, 1)}
}

// read returns the state of this replica, and what it knows of the others. It takes a
// second at most, and names what it could not read in that time.
func (f *fleetReader) read(ctx context.Context) console.Fleet {
	ctx, cancel := context.WithTimeout(ctx, fleetWithin)
	defer cancel()
	fleet := console.Fleet{Time: time.Now(), Host: host(), Version: f.build.Version, Shared: f.app.connections != nil}
	for _, source := range f.app.components() {
		fleet.Components = append(fleet.Components, console.FleetComponent{
			Name: source.Name, Partner: source.Partner, Webhook: source.Webhook, Issuer: source.Issuer, Condition: source.Read(),
		})
	}
	var reading sync.WaitGroup
	fleet.Webhooks = make([]console.FleetWebhook, len(f.app.webhooks))
	for i := range f.app.webhooks {
		reading.Go(func() { fleet.Webhooks[i] = f.webhook(ctx, i) })
	}
	values, err := f.gather(ctx)
	reading.Wait()
	if err != nil {
		fleet.Unread = append(fleet.Unread, console.FleetUnread{Name: "the metrics of this replica"})
	} else {
		fleet.Process = f.process(values)
	}
	for i := range fleet.Webhooks {
		if w := &fleet.Webhooks[i]; w.State == "" {
			fleet.Unread = append(fleet.Unread, console.FleetUnread{Name: "the webhook " + w.Name, Partner: w.Partner})
		}
	}
	for _, e := range f.app.engines {
		fleet.Partners = append(fleet.Partners, f.partner(e, values, fleet.Time))
	}
	return fleet
}

// metricValues are the values of counters and gauges, by name and then labels.
type metricValues map[string]*dto.MetricFamily

// gather reads the metrics, one reader at a time. A collector that hangs is waited for
// until ctx ends.
func (f *fleetReader) gather(ctx context.Context) (metricValues, error) {
	select {
	case f.gathering <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	read := make(chan metricValues, 1)
	go func() {
		defer func() { <-f.gathering }()
		families, err := f.gatherer.Gather()
		if err != nil && len(families) == 0 {
			close(read)
			return
		}
		values := make(metricValues, len(families))
		for _, family := range families {
			values[family.GetName()] = family
		}
		read <- values
	}()
	select {
	case values, ok := <-read:
		if !ok {
			return nil, errGather
		}
		return values, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errGather = errors.New("the metrics cannot be read")

// each calls visit with each value of a metric that has these labels, in pairs.
func (v metricValues) each(name string, visit func(metric *dto.Metric, value float64), labels ...string) {
	for _, metric := range v[name].GetMetric() {
		if !hasLabels(metric, labels) {
			continue
		}
		visit(metric, metric.GetGauge().GetValue()+metric.GetCounter().GetValue())
	}
}

// of returns the value of a metric with these labels, 0 if there is none.
func (v metricValues) of(name string, labels ...string) (value float64) {
	v.each(name, func(_ *dto.Metric, found float64) { value = found }, labels...)
	return value
}

// until returns the time in as many seconds as a metric states; zero if it states none.
func (v metricValues) until(now time.Time, name string, labels ...string) (at time.Time) {
	v.each(name, func(_ *dto.Metric, seconds float64) {
		if !math.IsNaN(seconds) && math.Abs(seconds) < math.MaxInt32 {
			at = now.Add(time.Duration(seconds * float64(time.Second)))
		}
	}, labels...)
	return at
}

func hasLabels(metric *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if labelOf(metric, labels[i]) != labels[i+1] {
			return false
		}
	}
	return true
}

func labelOf(metric *dto.Metric, name string) string {
	for _, label := range metric.GetLabel() {
		if label.GetName() == name {
			return label.GetValue()
		}
	}
	return ""
}

// process returns what is about this process. now is when values were read.
func (f *fleetReader) process(values metricValues) *console.FleetProcess {
	now := time.Now()
	return &console.FleetProcess{
		CertificateEnds: values.until(now, "eligibility_tls_certificate_expires_in_seconds"),
		TokensEnd:       values.until(now, "eligibility_tokens_expire_in_seconds"),
		DecisionLog:     f.app.decisions.log != nil,
		Dropped:         values.of("eligibility_decision_log_dropped_total"),
		Queued:          values.of("eligibility_decision_log_queue_records"),
	}
}

// partner returns what is about one partner. values are nil if they could not be read.
func (f *fleetReader) partner(e *engine, values metricValues, now time.Time) console.FleetPartner {
	p := console.FleetPartner{Name: e.partner.Name}
	if e.budget != nil {
		report := e.budget.Report()
		p.Replicas, p.Announced = replicasOf(&report), report.Announced
		p.Budget = budgetOf(&report, values, p.Name, now)
	}
	if e.client != nil && values != nil {
		p.Credentials = credentialsOf(e.partner, e.client.Lifetimes(), values, now)
	}
	if values == nil {
		return p
	}
	if f.app.connections != nil {
		p.Store = &console.FleetStore{
			Writable:   values.of("eligibility_cache_redis_writable", "partner", p.Name) == 1,
			Subscribed: values.of("eligibility_cache_redis_subscribed", "partner", p.Name) == 1,
			Outbox:     values.of("eligibility_cache_outbox_entries", "partner", p.Name),
			Lost:       values.of("eligibility_cache_outbox_dropped_total", "partner", p.Name),
			FeedLag:    seconds(values.of("eligibility_watch_lag_seconds", "partner", p.Name)),
		}
	}
	if e.reviews != nil {
		p.Reviews = &console.FleetReviews{
			Tracked: values.of("eligibility_reviews_tracked", "partner", p.Name),
			Due:     values.of("eligibility_reviews_due", "partner", p.Name),
			Late:    seconds(values.of("eligibility_reviews_late", "partner", p.Name)),
		}
	}
	return p
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

func replicasOf(report *budget.Report) []console.FleetReplica {
	all := report.Fleet.Replicas
	replicas := make([]console.FleetReplica, len(all))
	for i, replica := range all {
		own := all[report.Fleet.Place]
		replicas[i] = console.FleetReplica{
			Host: replica.Host, Version: replica.Version, PerMinute: replica.PerMinute, Own: i == report.Fleet.Place,
			SameBudget: replica.PerMinute == own.PerMinute, SamePolicy: replica.Policy == own.Policy,
		}
	}
	return replicas
}

func budgetOf(report *budget.Report, values metricValues, partner string, now time.Time) *console.FleetBudget {
	const prefix = "eligibility_partner_center_"
	b := &console.FleetBudget{
		PerMinute: report.PerMinute, Limit: report.Limit, Level: report.Level, Alone: report.Alone,
		BreakerOpen:      values.of(prefix+"breaker_open", "partner", partner) == 1,
		LoginBreakerOpen: values.of(prefix+"login_breaker_open", "partner", partner) == 1,
	}
	if report.Paused > 0 {
		b.PausedUntil = now.Add(report.Paused)
	}
	if values.of(prefix+"login_pause_seconds", "partner", partner) > 0 {
		b.LoginPausedUntil = values.until(now, prefix+"login_pause_seconds", "partner", partner)
	}
	for lane := evidence.Lanes - 1; lane >= 0; lane-- {
		name := evidence.Lane(lane).String()
		b.Lanes = append(b.Lanes, console.FleetLane{
			Name: name, Waiting: report.Waiting[lane],
			Refused: values.of(prefix+"budget_refused_total", "partner", partner, "lane", name),
		})
	}
	return b
}

func credentialsOf(partner config.Partner, lives pcclient.Lifetimes, values metricValues, now time.Time) *console.FleetCredentials {
	const prefix = "eligibility_partner_center_"
	c := &console.FleetCredentials{
		Flow: string(partner.Flow), Proof: proofOf(&partner.PartnerCenter),
		AccessTokenEnds: lives.AccessToken, CertificateEnds: lives.Certificate,
		RefreshTokenEnd: values.until(now, prefix+"refresh_token_expires_in_seconds", "partner", partner.Name),
		Unstored:        values.of(prefix+"refresh_token_unstored", "partner", partner.Name) == 1,
	}
	if !c.RefreshTokenEnd.IsZero() {
		c.RefreshTokenStored = c.RefreshTokenEnd.Add(-pcclient.RefreshTokenLife)
	}
	values.each(prefix+"credentials_alert", func(metric *dto.Metric, value float64) {
		if value == 1 {
			c.Refused = append(c.Refused, labelOf(metric, "op"))
		}
	}, "partner", partner.Name)
	return c
}

// proofOf names what proves who we are at the login host.
func proofOf(cfg *config.PartnerCenter) string {
	switch {
	case cfg.ClientAssertion != config.NoAssertion:
		return "Identity (" + string(cfg.ClientAssertion) + ")"
	case !cfg.ClientCertificate.IsZero():
		return "Client certificate"
	case !cfg.ClientCertificateVault.IsZero():
		return "Client certificate of a vault"
	case !cfg.ClientSecretVault.IsZero():
		return "Client secret of a vault"
	default:
		return "Client secret"
	}
}

// webhook returns the state of a webhook, without State if it could not be read.
func (f *fleetReader) webhook(ctx context.Context, i int) console.FleetWebhook {
	cfg, w := f.app.cfg.Webhooks[i], f.app.webhooks[i]
	found := console.FleetWebhook{Name: cfg.Name, Partner: w.partner}
	if u, err := url.Parse(cfg.URL); err == nil {
		found.Host = u.Host
	}
	status, err := w.store.Inspect(ctx, cfg.Name)
	if err != nil {
		return found
	}
	now := time.Now()
	found.State, found.PausedUntil = status.Condition(cfg.URL, now)
	found.Sender, found.Lag, found.Parked, found.Dead = status.Sender(), status.Lag(now), status.Parked, status.Dead
	if f.app.connections != nil && (found.Dead > 0 || found.State == "disabled") {
		found.Replay = "eligibilityd webhooks replay " + cfg.Name + " --all --config FILE"
	}
	return found
}
