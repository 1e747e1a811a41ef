package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestConfigPrint(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("log:\n  level: debug\npartner_center: {client_secret: canary}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"ELIGIBILITY_SERVER__DRAIN=1h", "ELIGIBILITY_CACHE__REDIS__ADDRESSES=127.0.0.1:1"}
	var table, object bytes.Buffer
	if err := printConfig(path, environ, false, &table); err != nil {
		t.Fatal(err)
	}
	if err := printConfig(path, environ, true, &object); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(table.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	shown := "\n" + strings.Join(lines, "\n")
	for _, want := range []string{
		"log.level debug " + path + ":2", "partner_center.client_secret [redacted] " + path + ":3",
		"server.drain 1h ELIGIBILITY_SERVER__DRAIN", "server.reserve 20ms default", "cache.redis.addresses [127.0.0.1:1] ELIGIBILITY_CACHE__REDIS__ADDRESSES",
	} {
		if !strings.Contains(shown, "\n"+want+"\n") {
			t.Errorf("no line %q in:%s", want, shown)
		}
	}
	var read struct {
		Digest   string
		Settings []struct {
			Key, Source string
			Value       any
		}
	}
	if err := json.Unmarshal(object.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, environ, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	if read.Digest != cfg.Digest() || !strings.HasSuffix(shown, "digest "+read.Digest+"\n") || len(read.Settings) != len(lines)-3 {
		t.Errorf("digest %s, want %s; %d settings in JSON and %d lines", read.Digest, cfg.Digest(), len(read.Settings), len(lines))
	}
	for _, s := range read.Settings {
		if s.Key == "cache.redis.db" && (s.Value != 0.0 || s.Source != byDefault) {
			t.Errorf("%+v", s)
		}
	}
	if strings.Contains(shown+object.String(), "canary") {
		t.Error("the secret is shown")
	}
	err = printConfig(path, []string{"ELIGIBILITY_LOG__LEVEL=x"}, false, &table)
	if err == nil || !strings.Contains(err.Error(), "ELIGIBILITY_LOG__LEVEL: log.level") {
		t.Errorf("error %v", err)
	}
}

// The record of the configuration holds what was given, and is bounded.
func TestTheRecordOfTheConfigurationIsBounded(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	settings := []config.Setting{{Key: "a", Value: 1}, {Key: "b", Value: "x", Source: "B"}}
	for range 100 {
		settings = append(settings, config.Setting{Key: "c", Value: strings.Repeat("x", 1000), Source: "C"})
	}
	logSettings(zap.New(core), "sha256:0", settings)
	fields := logs.All()[0].ContextMap()
	given, _ := fields["given"].([]any)
	if len(given) < 30 || len(given) > 33 || given[0] != "b=x (B)" || fields["left_out"] != int64(101-len(given)) || fields["digest"] != "sha256:0" {
		t.Errorf("%d given, the first %v, %v left out, digest %v", len(given), given[0], fields["left_out"], fields["digest"])
	}
}
