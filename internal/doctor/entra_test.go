package doctor

import (
	"context"
	"net/http"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
)

// Redis that admits the identity of this process is examined as any other; what is
// missing is said.
func TestDoctorExaminesRedisByEntraID(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	certificates := cachetest.NewTLS(t)
	server := certificates.StartRedis(t)
	environ := append(overTLS(certificates), "ELIGIBILITY_CACHE__REDIS__ENTRA_ID__ENABLED=true")
	e := consult(t, onRedis(t, server.Address, environ...), Options{})
	e.want(checkRedisIdentity, VerdictOK, identitytest.ObjectID)
	e.want(checkRedisReach, VerdictFailure, "WRONGPASS", "access policy")
	endpoint.OnIssue(func(token string) {
		client := server.Client()
		defer func() { _ = client.Close() }()
		if err := client.Do(context.Background(), "ACL", "SETUSER", identitytest.ObjectID, "on", "~*", "&*", "+@all", ">"+token).Err(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("AZURE_CLIENT_ID", "another-identity") // whose token is not known yet
	e = consult(t, onRedis(t, server.Address, environ...), Options{})
	e.want(checkRedisIdentity, VerdictOK, identitytest.ObjectID)
	e.want(checkRedisReach, VerdictOK)
	e.want(checkRedisAccess, VerdictOK)
	for status, want := range map[int]string{http.StatusBadRequest: "AZURE_CLIENT_ID", http.StatusInternalServerError: "identity endpoint"} {
		t.Setenv("AZURE_CLIENT_ID", "identity-"+http.StatusText(status))
		endpoint.Break(identitytest.Fails(status))
		e = consult(t, onRedis(t, server.Address, environ...), Options{})
		e.want(checkRedisIdentity, VerdictFailure, want)
		if e.Has(checkRedisReach) {
			t.Error("Redis is examined without a token")
		}
	}
}
