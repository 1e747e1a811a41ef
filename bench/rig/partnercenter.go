package rig

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// startPartnerCenter serves a stand-in for Partner Center and its login host: every
// customer may buy and holds one qualification. The simulator would have to be
// scripted for each of a million customers.
func (r *Rig) startPartnerCenter(ctx context.Context) error {
	mux := http.NewServeMux()
	for pattern, body := range map[string]string{
		"GET /v1/customers/{id}/validationStatus": `{"type":"account","status":"Allowed","lastUpdateDateTime":""}`,
		"GET /v1/customers/{id}/qualifications":   `[{"qualification":"Education","vettingStatus":"Approved","vettingCreatedDate":"2026-01-02T03:04:05Z"}]`,
		"POST /{tenant}/oauth2/": fmt.Sprintf(`{"token_type":"Bearer","expires_in":"86400","access_token":"an-access-token-of-the-benchmark","refresh_token":%q}`,
			refreshToken),
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = io.WriteString(w, body) // if the service has left, it asks again
		})
	}
	var err error
	r.partnerCenter, err = serveBackend(ctx, mux)
	return err
}
