package server

import (
	"testing"
	"time"

	"go.uber.org/zap"
)

func TestZeroValuesMeanTheDocumentedDefaults(t *testing.T) {
	t.Parallel()
	cfg := withDefaults(Config{})
	if cfg.ShutdownTimeout != 10*time.Second || cfg.DrainPause != 0 || cfg.FailureRecords != 20 {
		t.Errorf("defaults %+v", cfg)
	}
	if cfg.Logger == nil || cfg.Registerer == nil || cfg.Gatherer == nil {
		t.Errorf("defaults %+v", cfg)
	}
	logger := zap.NewNop()
	set := withDefaults(Config{Logger: logger, ShutdownTimeout: 4, FailureRecords: 5})
	if set.Logger != logger || set.ShutdownTimeout != 4 || set.FailureRecords != 5 {
		t.Errorf("a setting was lost: %+v", set)
	}
}
