package webhooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// maxBody bounds a request. No change of facts that Partner Center documents comes
// near it.
const (
	maxBody = 1 << 20
	maxID   = 256
)

var (
	errEvent    = errors.New("event of the feed is no object with an id and data")
	errTooLarge = errors.New("event is larger than 1 MiB")
)

// messageSafely is message; a panic is an error.
func (s *Sender) messageSafely(ctx context.Context, change *changes.Change) (id string, body []byte, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.logger.Error("event panicked", zap.Any("cause", cause), zap.ByteString("stack", debug.Stack()))
			id, body, err = "", nil, errPanic
		}
	}()
	return s.message(ctx, change)
}

// message returns the event of a change with the decisions added, or nil if the
// webhook does not send it.
func (s *Sender) message(ctx context.Context, change *changes.Change) (id string, body []byte, err error) {
	meaning := s.compare(ctx, change)
	if !s.sends(change, meaning) {
		return "", nil, nil
	}
	customer := change.Key.CustomerID
	return addDecisions(s.cfg.AppendEvent(nil, change), s.answer(customer, meaning.Before), s.answer(customer, meaning.After))
}

// compare repeats a comparison that lacks an answer because the tiers could not be
// read, until s.patience ends: others wait behind it.
func (s *Sender) compare(ctx context.Context, change *changes.Change) evidence.Comparison {
	for delay := compareRetry; ; delay *= 2 {
		meaning := s.cfg.Compare(ctx, change, s.cfg.Segment)
		if !meaning.Unread || meaning.After != nil || !meaning.Passes || ctx.Err() != nil || time.Now().Add(delay).After(s.patience) {
			return meaning
		}
		wait(ctx, delay)
	}
}

// sends reports whether the webhook sends a change. A block has ended if the facet
// that changed no longer blocks and the other is not known to: evidence about the
// other may be older than it may be for an answer, because only the facet under
// review is fetched.
func (s *Sender) sends(change *changes.Change, meaning evidence.Comparison) bool {
	if !s.cfg.OnlyUnblocked {
		return meaning.Differs || change.Type == changes.TypeAbandoned
	}
	isBlock := func(answer *eligibility.Answer) bool {
		return answer != nil && answer.Decision == eligibility.DecisionBlocked
	}
	return change.Type == changes.TypeChanged && isBlock(meaning.Before) && !isBlock(meaning.After) && meaning.Passes
}

func (s *Sender) answer(id eligibility.CustomerID, answer *eligibility.Answer) []byte {
	if answer == nil {
		return []byte("null")
	}
	return s.cfg.AppendAnswer(nil, id, answer)
}

// addDecisions returns a CloudEvent with two members added to its data, and its id.
func addDecisions(event, before, after []byte) (id string, body []byte, err error) {
	decoder := json.NewDecoder(bytes.NewReader(event))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return "", nil, errEvent
	}
	end := 0 // of the data
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return "", nil, errEvent
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return "", nil, errEvent
		}
		switch {
		case name == "id" && json.Unmarshal(value, &id) != nil:
			return "", nil, errEvent
		case name == "data" && len(value) > 2 && value[0] == '{':
			end = int(decoder.InputOffset()) - 1
		}
	}
	if id == "" || len(id) > maxID || end == 0 {
		return "", nil, errEvent
	}
	if len(event)+len(before)+len(after) > maxBody {
		return "", nil, errTooLarge
	}
	body = make([]byte, 0, len(event)+len(before)+len(after)+64)
	body = append(body, event[:end]...)
	body = append(append(body, `,"decisionBefore":`...), before...)
	body = append(append(body, `,"decisionAfter":`...), after...)
	return id, append(body, event[end:]...), nil
}
