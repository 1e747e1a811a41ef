package server

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/health"
)

// readiness is the answer to /readyz?verbose.
type readiness struct {
	Status     string      `json:"status"`
	Components []component `json:"components"`
}

type component struct {
	Name      string     `json:"name"`
	Partner   string     `json:"partner,omitempty"`
	Webhook   string     `json:"webhook,omitempty"`
	Issuer    string     `json:"issuer,omitempty"`
	State     string     `json:"state"`
	Since     string     `json:"since"`
	LastError *lastError `json:"last_error,omitempty"`
}

type lastError struct {
	Kind string `json:"kind"`
	Time string `json:"time"`
}

// timeFormat is RFC 3339 in UTC to the millisecond.
const timeFormat = "2006-01-02T15:04:05.000Z"

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// writeComponents writes the state of the server, which components do not change, and
// theirs.
func writeComponents(w http.ResponseWriter, code int, state string, sources []health.Source) {
	answer := readiness{Status: state, Components: make([]component, len(sources))}
	for i, source := range sources {
		now := source.Read()
		answer.Components[i] = component{
			Name: source.Name, Partner: source.Partner, Webhook: source.Webhook, Issuer: source.Issuer,
			State: now.State.String(), Since: formatTime(now.Since),
		}
		if now.Kind != "" {
			answer.Components[i].LastError = &lastError{Kind: now.Kind, Time: formatTime(now.Time)}
		}
	}
	writeHeader(w, code)
	_ = json.NewEncoder(w).Encode(answer) //nolint:errchkjson // strings only; a caller who left is no concern
}
