package pcclient_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// T-05: replicas that renew at the same moment use and replace the same refresh
// token, and none of them is ever without one.
func TestReplicasShareARefreshToken(t *testing.T) {
	t.Parallel()
	const replicas, hours = 4, 20
	at := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	sim, err := pcsim.New(pcsim.Config{Now: at.Now})
	if err != nil {
		t.Fatal(err)
	}
	far := httptest.NewServer(sim.Handler())
	t.Cleanup(func() {
		sim.Close()
		far.Close()
	})
	file := filepath.Join(t.TempDir(), "refresh-token")
	if err := os.WriteFile(file, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	clients := make([]*pcclient.Client, replicas)
	for i := range clients {
		if clients[i], err = pcclient.New(pcclient.Config{
			BaseURL: far.URL, Authority: far.URL, TenantID: pcsim.DefaultTenantID, ClientID: pcsim.DefaultClientID,
			ClientSecret: pcsim.DefaultClientSecret, Audience: "https://api.partnercenter.microsoft.com",
			RefreshTokenFile: file, Now: at.Now,
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(clients[i].Close)
	}
	for range hours {
		var renewing sync.WaitGroup
		for _, client := range clients {
			renewing.Go(func() {
				if err := client.Token(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		renewing.Wait()
		at.advance(pcsim.DefaultTokenLifetime)
	}
	if n := sim.Stats().Tokens; n != replicas*hours {
		t.Errorf("%d token requests, want %d", n, replicas*hours)
	}
	if content, err := os.ReadFile(file); err != nil || string(content) == pcsim.DefaultRefreshToken {
		t.Errorf("nothing was rotated: %v", err)
	}
}
