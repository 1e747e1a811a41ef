package rest

import (
	"context"
	"net/http"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// Costly are bodies of a batch that make a careless reader repeat work.
var Costly = costly

// WriteError answers an RPC that failed.
func WriteError(w http.ResponseWriter, err error) {
	writeError(context.Background(), nil, nil, w, nil, err)
}

// RouteFor is ServeFor, except that the gateway routes every request.
func (r *Handler) RouteFor(w http.ResponseWriter, req *http.Request, caller *access.Caller) {
	inbound := r.read(req)
	inbound.Admit(caller)
	r.route(w, req, inbound)
}
