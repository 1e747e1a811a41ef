//go:build acceptance

package cache_test

import (
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// What holds for one server holds for the nodes of a cluster. Behind sentinels
// connections are not authenticated again, and short-lived instead.
func TestAcceptanceDeployTokensInEveryTopology(t *testing.T) { //nolint:paralleltest // it changes the environment
	certificates := cachetest.NewTLS(t)
	t.Run("sentinel", func(t *testing.T) { //nolint:paralleltest // see above
		set := certificates.StartSentinel(t)
		if again := renewsTokens(t, certificates, onSentinel(set), set.Servers); again != 0 {
			t.Errorf("%d connections were authenticated again", again)
		}
	})
	t.Run("cluster", func(t *testing.T) { //nolint:paralleltest // see above
		cluster := certificates.StartCluster(t)
		if again := renewsTokens(t, certificates, onCluster(cluster), cluster.Nodes); again < 2 {
			t.Errorf("%d connections were authenticated again", again)
		}
	})
}
