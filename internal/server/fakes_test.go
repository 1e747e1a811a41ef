package server

import (
	"context"
	"sync"
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
	customerA = "11111111-1111-4111-8111-111111111111"
	customerB = "22222222-2222-4222-8222-222222222222"
)

// source is an in-memory evidence.Source: a function.
type source func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error)

func (f source) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	query.Started()
	return f(ctx, query.CustomerID, query.Facet)
}

// says is a source that says the same of every customer.
func says(status eligibility.AccountStatus, word string, held ...eligibility.Qualification) source {
	return func(_ context.Context, _ eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		call := eligibility.Call{Attempts: 1, Status: 200, CorrelationID: "correlation", RequestID: "request"}
		if facet == eligibility.FacetQualifications {
			return eligibility.Evidence{Qualifications: held}, call, nil
		}
		return eligibility.Evidence{Status: status, StatusText: word, CorrelationID: "correlation"}, call, nil
	}
}

// fails is a source that fails the same way for every customer.
func fails(failure eligibility.Error) source {
	return func(context.Context, eligibility.CustomerID, eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		return eligibility.Evidence{}, failure.Call, &failure
	}
}

// absent is a source that knows no customer.
func absent(why eligibility.Absence) source {
	return func(context.Context, eligibility.CustomerID, eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		return eligibility.Evidence{Absence: why}, eligibility.Call{}, nil
	}
}

// silent is a source that never answers.
func silent() source {
	return func(ctx context.Context, _ eligibility.CustomerID, _ eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		<-ctx.Done()
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindUnavailable, Err: ctx.Err()}
	}
}

// noticed tells started of each fetch that next makes.
func noticed(started chan<- struct{}, next source) source {
	return func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		started <- struct{}{}
		return next(ctx, id, facet)
	}
}

// store is an in-memory evidence.Store without a shared tier.
type store struct {
	mu     sync.Mutex
	held   map[eligibility.Key]*eligibility.Evidence
	broken bool // Peek panics
}

func (s *store) Peek(key eligibility.Key, _ time.Time) evidence.Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		panic("store is broken")
	}
	return evidence.Found{Evidence: s.held[key], Tier: eligibility.TierLocal}
}

func (s *store) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	return make([]evidence.Found, len(keys))
}

func (s *store) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return s.Load(ctx, keys)
}

func (s *store) Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[key] = evidence
	return evidence
}

func (s *store) Acquire(context.Context, evidence.Claim) evidence.Acquisition {
	return evidence.Acquisition{}
}

func (s *store) Release(context.Context, eligibility.Key, error) {}

func (s *store) Share(context.Context, eligibility.Key, *eligibility.Evidence, time.Time) {}

// put keeps evidence as if it had been fetched at a time.
func (s *store) put(id string, facet eligibility.Facet, evidence eligibility.Evidence, at time.Time) {
	customer, err := eligibility.ParseCustomerID(id)
	if err != nil {
		panic(err)
	}
	evidence.Facet, evidence.FetchTime = facet, at
	s.Put(eligibility.Key{CustomerID: customer, Facet: facet}, &evidence)
}

// approved is a source of a customer whose every qualification is approved, so
// that a segment that was lost on the way shows.
func approved() source {
	return says(eligibility.AccountStatusAllowed, "Allowed",
		eligibility.Qualification{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved"})
}

const exampleTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func ask(id string) *eligibilityv1.CheckEligibilityRequest {
	return &eligibilityv1.CheckEligibilityRequest{CustomerId: id}
}

// violatedBy lists the fields that err's violations name.
func violatedBy(err error) []string {
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

// told is what a caller can see of an error.
type told struct {
	Code    codes.Code
	Reason  string
	Retry   time.Duration
	Details int
}

func tellOf(st *status.Status) told {
	seen := told{Code: st.Code(), Details: len(st.Details())}
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

func recorded() (trace.Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test"), recorder
}

// fewestAllocations returns how often f allocates: the least of several
// measurements, because the garbage collector empties the pools.
func fewestAllocations(f func()) float64 {
	least := testing.AllocsPerRun(100, f)
	for range 9 {
		least = min(least, testing.AllocsPerRun(100, f))
	}
	return least
}
