// Package webhooks calls URLs with the changes of the feed.
//
// Each webhook has a [Sender] in every process. One of them holds the lease that a
// [Store] keeps, reads the feed from the position stored there, and calls the URL:
// at least once for each change, in order for each customer.
package webhooks

import (
	"context"
	"crypto/x509"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Config describes one webhook. Unless noted, every field is required.
type Config struct {
	// Name is the webhook's name, unique within the Store.
	Name string
	// URL is called with POST.
	URL string
	// Segment is the segment whose decisions are sent.
	Segment eligibility.Segment
	// OnlyUnblocked limits what is sent to changes that end a known block.
	OnlyUnblocked bool
	// AllowPrivate permits addresses of private networks.
	AllowPrivate bool
	// Roots are the authorities trusted for the URL; nil means the system's.
	Roots *x509.CertPool
	// Secrets returns the secrets that sign, the current one first.
	Secrets func() [][]byte
	// Follow begins to read the feed, as changes.Log.Follow does.
	Follow func(ctx context.Context, start changes.Start) (Cursor, error)
	// Compare returns what a change means in the segment, as evidence.Service.Compare
	// does.
	Compare func(ctx context.Context, change *changes.Change, segment eligibility.Segment) evidence.Comparison
	// AppendEvent appends the CloudEvent of a change in JSON.
	AppendEvent func(b []byte, change *changes.Change) []byte
	// AppendAnswer appends an answer in JSON, as the API returns it.
	AppendAnswer func(b []byte, id eligibility.CustomerID, answer *eligibility.Answer) []byte
	// Store keeps the state of the webhook.
	Store Store
	// Host names the process in the status of the webhook.
	Host string
	// Grace bounds how long the end of Run waits for requests under way.
	Grace time.Duration
	// Metrics counts; NewMetrics makes one for all webhooks.
	Metrics *Metrics
	// Logger is the log.
	Logger *zap.Logger
}

// Cursor reads the feed: a *changes.Cursor.
type Cursor interface {
	Next(ctx context.Context) ([]changes.Event, error)
	Progress() changes.Progress
}

const (
	// concurrency is how many customers' changes are sent at once.
	concurrency = 8
	// attemptTimeout bounds an attempt, from the connection to the status.
	attemptTimeout = 10 * time.Second
	// firstRetry is the delay after a first failure, and lastRetry the longest.
	firstRetry = 5 * time.Second
	lastRetry  = time.Hour
	// giveUpAfter is how long a change is tried before it becomes a dead letter.
	giveUpAfter = 72 * time.Hour
	// failuresInARow make the whole webhook back off.
	failuresInARow = 5
	// leaseLife is how soon another process takes over from one that died, and
	// beatInterval how often a holder renews, and others try.
	leaseLife    = 5 * time.Second
	beatInterval = time.Second
	// compareRetry is when a comparison is first repeated whose answers could not be
	// looked up, and comparePatience how long those of one batch are repeated.
	compareRetry    = 250 * time.Millisecond
	comparePatience = 10 * time.Second
	// idleProgress is how often the position advances if there are no changes.
	idleProgress = 15 * time.Second

	// maxWindow is how many changes are read ahead of the position.
	maxWindow = 256
	// MaxParked and maxParkedBytes bound the changes that wait for a further attempt
	// beside the position; if they are reached, the position waits.
	MaxParked      = 10_000
	maxParkedBytes = 16 << 20
	// MaxDead is how many dead letters are kept; the oldest make room.
	MaxDead = 10_000
)
