package console

import (
	"context"
	"net/http"
	"net/url"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// watchPath is the path of the API's stream of changes.
const watchPath = "/v1/eligibility:watch"

// events forwards to the stream of changes, as server-sent events, for a user who may
// watch nothing else. The stream checks the values of the parameters. It ends with the
// session.
func (h *Handler) events(w http.ResponseWriter, r *http.Request, u *user) {
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		h.fail(w, r, u, http.StatusBadRequest, "The parameters are malformed.")
		return
	}
	for name := range given {
		switch name {
		case "customer_ids", "segment", "partner":
		default:
			h.fail(w, r, u, http.StatusBadRequest, "The stream has no such parameter.")
			return
		}
	}
	watcher := *u.caller
	watcher.Rights |= access.Watch | access.WatchAll
	ctx := r.Context()
	if !u.until.IsZero() {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, u.until.Sub(h.cfg.Now()))
		defer end()
	}
	to := r.Clone(ctx)
	to.URL = &url.URL{Path: watchPath, RawQuery: given.Encode()}
	to.RequestURI = ""
	to.Header = http.Header{"Accept": {"text/event-stream"}}
	for _, name := range []string{"Last-Event-Id", "X-Request-Id", "Traceparent", "User-Agent"} {
		if values := r.Header.Values(name); len(values) > 0 {
			to.Header[name] = values
		}
	}
	h.cfg.Stream(w, to, &watcher)
}
