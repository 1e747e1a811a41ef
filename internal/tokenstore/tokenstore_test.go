package tokenstore_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore/vaulttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// under is a store under test, and how somebody else writes to it.
type under struct {
	tokenstore.Store

	put func(content string)
}

func newTransport(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func isSecretError(err error) bool { return errors.Is(err, tokenstore.ErrSecret) }

func stores(t *testing.T) map[string]under {
	t.Helper()
	path := filepath.Join(t.TempDir(), "refresh-token")
	transport := newTransport(t)
	server := vaulttest.Start(t, time.Now)
	vault, err := tokenstore.NewVault(tokenstore.VaultSecret{URL: server.URL, Name: vaulttest.Secret}, vaulttest.Credential{}, transport)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]under{
		"file": {tokenstore.File(path), func(content string) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"vault": {vault, server.Put},
	}
}

func TestStoresReturnWhatWasSaved(t *testing.T) {
	t.Parallel()
	for name, store := range stores(t) {
		if _, err := store.Load(t.Context()); !errors.Is(err, tokenstore.ErrNone) {
			t.Errorf("%s: %v before the first token", name, err)
		}
		if err := store.CheckSave(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, token := range []string{"first", "second"} {
			if err := store.Save(t.Context(), token); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := store.Load(t.Context())
			if err != nil || got.Value != token || time.Since(got.Stored).Abs() > time.Minute {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
	}
}

func TestStoresRejectWhatIsNoToken(t *testing.T) {
	t.Parallel()
	for name, store := range stores(t) {
		for content, want := range map[string]error{
			" \n":                         tokenstore.ErrNone,
			"two words":                   tokenstore.ErrNone,
			`"quoted"`:                    tokenstore.ErrNone,
			strings.Repeat("a", 64<<10+1): tokenstore.ErrUnreadable,
			"\ufeff  good\r\n":            nil,
			strings.Repeat("a", 64<<10):   nil,
		} {
			store.put(content)
			got, err := store.Load(t.Context())
			if !errors.Is(err, want) {
				t.Errorf("%s: %.10q: %v, want %v", name, content, err, want)
			}
			if (err == nil) != (got.Value != "") || err == nil && !tokenstore.Storable(got.Value) {
				t.Errorf("%s: %.10q is returned as %.10q", name, content, got.Value)
			}
		}
	}
}
