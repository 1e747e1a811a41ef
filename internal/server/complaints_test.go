package server

import (
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

// What the HTTP servers complain about is limited too.
func TestComplaintsOfHTTPAreLimited(t *testing.T) {
	t.Parallel()
	run := start(t, setup{server: Config{FailureRecords: 2}})
	begun := time.Now().Unix()
	for range 50 {
		run.server.Complain("http: superfluous")
	}
	seconds := int(time.Now().Unix()-begun) + 1
	records := run.logs.FilterMessage("http: superfluous").All()
	if len(records) < 2 || len(records) > 2*seconds || records[0].Level != zapcore.WarnLevel {
		t.Errorf("%d records in %d seconds: %v", len(records), seconds, records)
	}
}
