package server_test

import (
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// What the HTTP servers complain about is limited too.
func TestComplaintsOfHTTPAreLimited(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Server: server.Config{FailureRecords: 2}})
	begun := time.Now().Unix()
	for range 50 {
		run.Server.Complain("http: superfluous")
	}
	seconds := int(time.Now().Unix()-begun) + 1
	records := run.Logs.FilterMessage("http: superfluous").All()
	if len(records) < 2 || len(records) > 2*seconds || records[0].Level != zapcore.WarnLevel {
		t.Errorf("%d records in %d seconds: %v", len(records), seconds, records)
	}
}
