package config

import "time"

// checkChanges checks feed, watch, reviews and webhooks.
func (l *loader) checkChanges(command Command) {
	cfg := l.cfg
	l.checkDuration("feed.retention", cfg.Feed.Retention, time.Minute, longest)
	l.checkCount("feed.max_events", cfg.Feed.MaxEvents, 64, 10_000_000)
	l.checkCount("watch.max_streams", cfg.Watch.MaxStreams, 1, 1_000_000)
	if share := cfg.Reviews.BudgetShare; !(share > 0 && share <= 1) {
		l.object("reviews.budget_share", "must be more than 0 and at most 1")
	}
	l.checkDuration("reviews.give_up_after", cfg.Reviews.GiveUpAfter, time.Hour, longest)
	l.checkCount("reviews.max_tracked", cfg.Reviews.MaxTracked, 64, 1_000_000)
	l.checkWebhooks(command)
}
