package app_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// A replica that is ready does not refuse a token because its issuer's keys are still
// being fetched.
func TestAReplicaIsReadyOnceItHasTheKeysOfIssuers(t *testing.T) {
	t.Parallel()
	issuer := accesstest.NewIssuer(t)
	asked, reply := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(reply) })
	defer release()
	issuer.Answer(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-reply
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	cfg, err := config.Load("", []string{
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=127.0.0.1:0", "ELIGIBILITY_SERVER__HTTP__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS=127.0.0.1:0", "ELIGIBILITY_SERVER__DRAIN=0s",
		"ELIGIBILITY_AUTH__JWT=[{issuer: " + issuer.URL + ", audiences: [" + accesstest.Audience + "]}]",
	}, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	built, err := app.NewWith(ctx, cfg, app.Build{}, io.Discard, app.Replacements{Source: func(string) evidence.Source { return app.SilentSource{} }})
	if err != nil {
		t.Fatal(err)
	}
	on, err := app.OpenListeners(ctx, cfg.Server)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- built.Run(ctx, on) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ready := func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+on.Admin.Addr().String()+"/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusOK
	}
	<-asked
	for range 20 { // without the wait, it is ready at once
		if ready() {
			t.Fatal("ready before the keys were fetched")
		}
	}
	release()
	for deadline := time.Now().Add(8 * time.Second); !ready(); { // less than readyWithin
		if time.Now().After(deadline) {
			t.Fatal("not ready after the keys were fetched")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
