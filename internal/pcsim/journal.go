package pcsim

import (
	"net/http"
	"sync"
	"time"
)

// maxRequests is the number of resource calls that are kept.
const maxRequests = 10_000

// maxRecorded is how many bytes of a caller's text are kept.
const maxRecorded = 200

// Request is one recorded call of a resource. It never holds a token.
type Request struct {
	// Number counts the calls since the start or the last reset, from 1.
	Number uint64 `json:"number"`
	// Time is when the call arrived, by Config.Now.
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Query  string    `json:"query,omitempty"`
	// Resource is account, qualifications or other.
	Resource string `json:"resource"`
	// CustomerID is the one in the path, in lower case.
	CustomerID string `json:"customer_id,omitempty"`
	// RequestID and CorrelationID are the MS headers as the caller sent them.
	RequestID     string `json:"request_id,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
	// Status is the HTTP status of the answer: 0 while there is none, and
	// permanently if the connection was broken before.
	Status int `json:"status"`
	// Failure is the scripted failure of the call, if any.
	Failure string `json:"failure,omitempty"`
}

// Stats counts calls since the start or the last reset.
type Stats struct {
	Account        uint64 `json:"account"`
	Qualifications uint64 `json:"qualifications"`
	// Other counts calls of any path that is neither resource nor token.
	Other uint64 `json:"other"`
	// Tokens counts token requests, refused ones included.
	Tokens uint64 `json:"tokens"`
	// Throttled counts answers 429 of the resources.
	Throttled uint64 `json:"throttled"`
}

// journal keeps the latest calls.
type journal struct {
	mu    sync.Mutex
	ring  []Request // Number n is at index (n-1) % maxRequests
	last  uint64    // the latest Number
	epoch uint64    // counts resets, so that an older call finds no entry
	stats Stats
}

// entry identifies a recorded call.
type entry struct{ number, epoch uint64 }

func (j *journal) begin(r Request) entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch r.Resource {
	case string(roleAccount):
		j.stats.Account++
	case string(roleQualifications):
		j.stats.Qualifications++
	default:
		j.stats.Other++
	}
	j.last++
	r.Number = j.last
	r.Path, r.Query, r.CustomerID = cut(r.Path), cut(r.Query), cut(r.CustomerID)
	r.RequestID, r.CorrelationID = cut(r.RequestID), cut(r.CorrelationID)
	if len(j.ring) < maxRequests {
		j.ring = append(j.ring, r)
	} else {
		j.ring[(r.Number-1)%maxRequests] = r
	}
	return entry{r.Number, j.epoch}
}

// answered records a call's status, failed its failure.
func (j *journal) answered(e entry, status int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.epoch == j.epoch && status == http.StatusTooManyRequests {
		j.stats.Throttled++
	}
	if r := j.find(e); r != nil {
		r.Status = status
	}
}

func (j *journal) failed(e entry, failure string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.find(e); r != nil {
		r.Failure = failure
	}
}

// find requires mu. If the call is no longer kept, it returns nil.
func (j *journal) find(e entry) *Request {
	if e.epoch != j.epoch || j.last-e.number >= maxRequests {
		return nil
	}
	return &j.ring[(e.number-1)%maxRequests]
}

func (j *journal) tokenRequest() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats.Tokens++
}

func (j *journal) requests() []Request {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.ring) < maxRequests {
		return append([]Request{}, j.ring...)
	}
	oldest := j.last % maxRequests
	return append(append([]Request{}, j.ring[oldest:]...), j.ring[:oldest]...)
}

func (j *journal) counts() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stats
}

func (j *journal) reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ring, j.last, j.stats = nil, 0, Stats{}
	j.epoch++
}

// cut bounds a caller's text, and copies it so that the request's buffer is
// freed.
func cut(s string) string {
	if len(s) > maxRecorded {
		s = s[:maxRecorded]
	}
	return string([]byte(s))
}

// Requests returns the latest resource calls, oldest first: 10,000 at most,
// those in progress included. Token requests are only counted.
func (s *Server) Requests() []Request { return s.journal.requests() }

// Stats returns the counts of all calls.
func (s *Server) Stats() Stats { return s.journal.counts() }
