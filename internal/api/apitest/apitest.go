// Package apitest holds fakes of the ports of the engine, and reads what callers of
// the API can see. It is for tests only.
package apitest

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Customers that the tests ask about.
const (
	CustomerA = "11111111-1111-4111-8111-111111111111"
	CustomerB = "22222222-2222-4222-8222-222222222222"
)

// Source is an in-memory evidence.Source: a function.
type Source func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error)

// Fetch implements evidence.Source.
func (f Source) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	query.Started()
	return f(ctx, query.CustomerID, query.Facet)
}

// Room implements evidence.Source: nothing limits the calls.
func (f Source) Room(context.Context, evidence.Lane) int { return math.MaxInt }

// Obstacles implements evidence.Source.
func (Source) Obstacles(context.Context) []evidence.Obstacle { return nil }

// Returns is a source that returns the same for every customer.
func Returns(status eligibility.AccountStatus, word string, held ...eligibility.Qualification) Source {
	return func(_ context.Context, _ eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		call := eligibility.Call{Attempts: 1, Status: 200, CorrelationID: "correlation", RequestID: "request"}
		if facet == eligibility.FacetQualifications {
			return eligibility.Evidence{Qualifications: held}, call, nil
		}
		return eligibility.Evidence{Status: status, StatusText: word, CorrelationID: "correlation"}, call, nil
	}
}

// Fails is a source that fails the same way for every customer.
func Fails(failure eligibility.Error) Source {
	return func(context.Context, eligibility.CustomerID, eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		return eligibility.Evidence{}, failure.Call, &failure
	}
}

// Absent is a source that knows no customer.
func Absent(why eligibility.Absence) Source {
	return func(context.Context, eligibility.CustomerID, eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		return eligibility.Evidence{Absence: why}, eligibility.Call{}, nil
	}
}

// Silent is a source that never answers.
func Silent() Source {
	return func(ctx context.Context, _ eligibility.CustomerID, _ eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		<-ctx.Done()
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindUnavailable, Err: ctx.Err()}
	}
}

// Noticed sends to started when next begins a fetch.
func Noticed(started chan<- struct{}, next Source) Source {
	return func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		started <- struct{}{}
		return next(ctx, id, facet)
	}
}

// Store is an in-memory evidence.Store without a shared tier.
type Store struct {
	mu     sync.Mutex
	Held   map[eligibility.Key]*eligibility.Evidence
	Broken bool // Peek panics
	// Unread makes Load, LoadWithin and History report a shared tier that cannot be read.
	Unread atomic.Bool
	// Pasts is what History returns.
	Pasts []evidence.Past
}

// Peek implements evidence.Store.
func (s *Store) Peek(key eligibility.Key, _ time.Time) evidence.Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Broken {
		panic("store is broken")
	}
	return evidence.Found{Evidence: s.Held[key], Tier: eligibility.TierLocal}
}

// PeekBoth implements evidence.Store.
func (s *Store) PeekBoth(id eligibility.CustomerID, now time.Time) (account, qualifications evidence.Found) {
	return s.Peek(eligibility.Key{CustomerID: id}, now), s.Peek(eligibility.Key{CustomerID: id, Facet: eligibility.FacetQualifications}, now)
}

// PeekAll implements evidence.Store.
func (s *Store) PeekAll(ids []eligibility.CustomerID, now time.Time, founds *[evidence.PeekAtOnce][2]evidence.Found) {
	for i, id := range ids {
		founds[i][0], founds[i][1] = s.PeekBoth(id, now)
	}
}

// Load implements evidence.Store. It finds nothing.
func (s *Store) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	founds := make([]evidence.Found, len(keys))
	for i := range founds {
		founds[i].Unread = s.Unread.Load()
	}
	return founds
}

// LoadWithin implements evidence.Store. It finds nothing.
func (s *Store) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return s.Load(ctx, keys)
}

// History implements evidence.Store.
func (s *Store) History(context.Context, eligibility.CustomerID) ([]evidence.Past, error) {
	if s.Unread.Load() {
		return nil, errors.New("no history")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Pasts, nil
}

// Put implements evidence.Store. It replaces what is held, however old evidence is.
func (s *Store) Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Held[key] = evidence
	return evidence
}

// Acquire implements evidence.Store. Every caller gets the lease.
func (s *Store) Acquire(context.Context, evidence.Claim) evidence.Acquisition {
	return evidence.Acquisition{}
}

// Release implements evidence.Store. It does nothing.
func (s *Store) Release(context.Context, eligibility.Key, error) {}

// Share implements evidence.Store. It does nothing.
func (s *Store) Share(context.Context, eligibility.Key, *eligibility.Evidence, time.Time) {}

// Hold stores evidence as if it had been fetched at a time.
func (s *Store) Hold(id string, facet eligibility.Facet, evidence eligibility.Evidence, at time.Time) {
	customer, err := eligibility.ParseCustomerID(id)
	if err != nil {
		panic(err)
	}
	evidence.Facet, evidence.FetchTime = facet, at
	s.Put(eligibility.Key{CustomerID: customer, Facet: facet}, &evidence)
}

// Approved is a source of a customer whose every qualification is approved, so
// that a segment that was lost on the way shows.
func Approved() Source {
	return Returns(eligibility.AccountStatusAllowed, "Allowed",
		eligibility.Qualification{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved"})
}

// ExampleTrace is a sampled traceparent.
const ExampleTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// Ask returns the request of a commercial check.
func Ask(id string) *eligibilityv1.CheckEligibilityRequest {
	return &eligibilityv1.CheckEligibilityRequest{CustomerId: id}
}

// ViolatedBy lists the fields that err's violations name.
func ViolatedBy(err error) []string {
	var fields []string
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.GetFieldViolations() {
				fields = append(fields, violation.GetField())
			}
		}
	}
	return fields
}

// Outcome is what a caller can see of an error.
type Outcome struct {
	Code    codes.Code
	Reason  string
	Retry   time.Duration
	Details int
}

// OutcomeOf returns what a caller can see of st.
func OutcomeOf(st *status.Status) Outcome {
	seen := Outcome{Code: st.Code(), Details: len(st.Details())}
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			seen.Reason = detail.GetReason()
		case *errdetails.RetryInfo:
			seen.Retry = detail.GetRetryDelay().AsDuration()
		}
	}
	return seen
}

// RecordSpans returns a tracer and the recorder of its spans.
func RecordSpans() (trace.Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test"), recorder
}

// FewestAllocations returns how often f allocates: the least of several
// measurements, because the garbage collector empties the pools.
func FewestAllocations(f func()) float64 {
	least := testing.AllocsPerRun(100, f)
	for range 9 {
		least = min(least, testing.AllocsPerRun(100, f))
	}
	return least
}
