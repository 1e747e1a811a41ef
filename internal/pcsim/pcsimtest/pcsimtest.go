// Package pcsimtest starts the Partner Center simulator for tests, and configures
// the service for it.
package pcsimtest

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// Start starts a simulator on a socket. It stops when the test ends.
func Start(tb testing.TB) (*pcsim.Server, *httptest.Server) {
	tb.Helper()
	simulator, err := pcsim.New(pcsim.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	on := httptest.NewServer(simulator.Handler())
	tb.Cleanup(func() {
		simulator.Close()
		on.Close()
	})
	return simulator, on
}

// TokenFile returns a file that holds the simulator's refresh token.
func TokenFile(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "refresh-token")
	if err := os.WriteFile(path, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Environ returns the variables of a service that listens on free ports and uses
// the simulator at url. If more sets a variable, it wins.
func Environ(url, tokenFile string, more ...string) []string {
	environ := slices.Clone(more)
	for name, value := range map[string]string{
		"SERVER__GRPC__ADDRESS":              "127.0.0.1:0",
		"SERVER__HTTP__ADDRESS":              "127.0.0.1:0",
		"SERVER__ADMIN__ADDRESS":             "127.0.0.1:0",
		"LOG__FORMAT":                        "json",
		"PARTNER_CENTER__BASE_URL":           url,
		"PARTNER_CENTER__AUTHORITY":          url,
		"PARTNER_CENTER__TENANT_ID":          pcsim.DefaultTenantID,
		"PARTNER_CENTER__CLIENT_ID":          pcsim.DefaultClientID,
		"PARTNER_CENTER__CLIENT_SECRET":      pcsim.DefaultClientSecret,
		"PARTNER_CENTER__REFRESH_TOKEN_FILE": tokenFile,
	} {
		entry := "ELIGIBILITY_" + name + "="
		if !slices.ContainsFunc(more, func(set string) bool { return strings.HasPrefix(set, entry) }) {
			environ = append(environ, entry+value)
		}
	}
	return environ
}
