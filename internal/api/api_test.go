package api

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestWhatNewChainRefuses(t *testing.T) {
	t.Parallel()
	if _, err := New(Partners{}, Config{}); err == nil {
		t.Error("a chain without partners")
	}
	partners, err := NewPartners(map[string]*evidence.Service{"eu": new(evidence.Service)}, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(partners, Config{
		DefaultTimeout: -1, MaxTimeout: -1, Reserve: -1, MaxConcurrent: -1, PlainRecords: -1, FailureRecords: -1, SampleRatio: 2,
	})
	for _, want := range []string{"default timeout", "max timeout", "reserve", "max concurrent", "plain records", "failure records", "sample ratio"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	registry := prometheus.NewRegistry()
	for i := range 2 {
		_, err := New(partners, Config{Registerer: registry})
		if (err != nil) != (i == 1) {
			t.Errorf("chain %d on one registry: %v", i, err)
		}
	}
}

func TestZeroValuesOfAChainMeanTheDocumentedDefaults(t *testing.T) {
	t.Parallel()
	cfg := withDefaults(Config{})
	if cfg.DefaultTimeout != 2*time.Second || cfg.MaxTimeout != 30*time.Second || cfg.Reserve != 20*time.Millisecond ||
		cfg.MaxConcurrent != 4096 || cfg.PlainRecords != 100 || cfg.FailureRecords != 20 {
		t.Errorf("defaults %+v", cfg)
	}
	if cfg.Logger == nil || cfg.Now == nil || cfg.Registerer == nil {
		t.Errorf("defaults %+v", cfg)
	}
	logger := zap.NewNop()
	set := withDefaults(Config{Logger: logger, DefaultTimeout: 1, MaxTimeout: 2, Reserve: 3, MaxConcurrent: 5})
	if set.Logger != logger || set.DefaultTimeout != 1 || set.MaxTimeout != 2 || set.Reserve != 3 || set.MaxConcurrent != 5 {
		t.Errorf("a setting was lost: %+v", set)
	}
}
