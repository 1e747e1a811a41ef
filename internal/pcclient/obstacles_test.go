package pcclient_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// What a fetch would meet is an obstacle, with the time of the next call, and the error
// of the fetch; to look for obstacles calls neither host and takes nothing.
func TestObstacles(t *testing.T) {
	t.Parallel()
	type seen struct {
		Kind evidence.ObstacleKind
		Host evidence.Host
		Left time.Duration // 0: not known
		Err  eligibility.Kind
		Wait time.Duration // until a retry
	}
	for name, row := range map[string]struct {
		setup setup
		meet  func(r *rig)
		want  []seen
	}{
		"none":  {meet: func(r *rig) { r.ask() }},
		"begin": {meet: func(*rig) {}},
		"pause": {
			setup: setup{api: responds(http.StatusTooManyRequests, "", "Retry-After: 40")},
			meet:  func(r *rig) { r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled) },
			want:  []seen{{evidence.ObstaclePause, evidence.HostPartnerCenter, 40 * time.Second, eligibility.KindThrottled, 40 * time.Second}},
		},
		"budget": {
			setup: setup{config: withBudget(30)},
			meet: func(r *rig) {
				for range 3 {
					r.ask()
				}
			},
			want: []seen{{evidence.ObstacleBudget, evidence.HostPartnerCenter, 2178572 * time.Microsecond, eligibility.KindThrottled, 2178572 * time.Microsecond}},
		},
		"circuit breaker": {
			setup: setup{api: responds(http.StatusBadGateway, `{"isRetryable":false}`)},
			meet: func(r *rig) {
				for range 10 {
					r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
				}
			},
			want: []seen{{evidence.ObstacleCircuitBreaker, evidence.HostPartnerCenter, time.Second, eligibility.KindUnavailable, time.Second}},
		},
		"login refuses": {
			setup: setup{login: responds(http.StatusBadRequest, `{"error":"invalid_client"}`)},
			meet:  func(r *rig) { _, _, _ = r.ValidationStatus(r.t.Context(), customerID) },
			want:  []seen{{evidence.ObstacleCredentials, evidence.HostLogin, 30 * time.Second, eligibility.KindCredentials, 0}},
		},
		"login pauses": {
			setup: setup{login: responds(http.StatusTooManyRequests, "", "Retry-After: 50")},
			meet:  func(r *rig) { _, _, _ = r.ValidationStatus(r.t.Context(), customerID) },
			want:  []seen{{evidence.ObstaclePause, evidence.HostLogin, 50 * time.Second, eligibility.KindThrottled, 50 * time.Second}},
		},
		"login fails": {
			setup: setup{login: responds(http.StatusServiceUnavailable, "")},
			meet:  func(r *rig) { _, _, _ = r.ValidationStatus(r.t.Context(), customerID) },
			want:  []seen{{evidence.ObstacleCircuitBreaker, evidence.HostLogin, time.Second, eligibility.KindUnavailable, time.Second}},
		},
		"no app+user token": {
			setup: setup{config: func(c *pcclient.Config) { c.Flow = pcclient.FlowAppOnly }},
			meet:  func(*rig) {},
			want:  []seen{{evidence.ObstacleCredentials, evidence.HostPartnerCenter, 0, eligibility.KindCredentials, 0}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, row.setup)
			row.meet(r)
			logins, calls := r.login.count(), r.api.count()
			source := pcclient.NewSource(r.Client)
			for range 100 {
				var got []seen
				for _, o := range source.Obstacles(t.Context()) {
					s := seen{Kind: o.Kind, Host: o.Host}
					if !o.Until.IsZero() {
						s.Left = o.Until.Sub(r.clock.Now())
					}
					if failure, ok := errors.AsType[*eligibility.Error](o.Err); ok {
						s.Err, s.Wait = failure.Kind, failure.RetryAfter
					}
					got = append(got, s)
				}
				jitter := cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() <= max(a, b)/10 })
				if diff := cmp.Diff(row.want, got, jitter); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			}
			r.counts(logins, calls)
			for _, o := range row.want { // they pass
				r.clock.advance(o.Left*11/10 + time.Second)
			}
			if left := source.Obstacles(t.Context()); len(row.want) > 0 && row.want[0].Left > 0 && len(left) > 0 {
				t.Errorf("afterwards: %+v", left)
			}
		})
	}
}
