package pcsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Settings may change while a server runs. The zero value is a Microsoft
// without faults.
type Settings struct {
	// WithoutMFA makes user tokens that are issued from now on lack the proof
	// of multi-factor authentication. A refresh token keeps the state of its
	// consent. If an access token lacks the proof, the resources reject it: 401
	// with code 900421. App-only tokens are exempt.
	WithoutMFA bool `json:"without_mfa" yaml:"without_mfa"`
	// MFAPassPercent lets that percentage of calls with such a token pass,
	// evenly spread, as during Microsoft's gradual enforcement: if it is 50,
	// every other call is rejected, from the first. If it is zero, none passes.
	MFAPassPercent int `json:"mfa_pass_percent" yaml:"mfa_pass_percent"`
	// ClockSkew is how far Microsoft's clocks are ahead of Config.Now, or
	// behind if negative. It applies to Date headers and tokens, not to
	// timelines and limits.
	ClockSkew time.Duration `json:"-" yaml:"clock_skew"` // MarshalJSON writes it
}

// MarshalJSON writes the skew as "10m0s".
func (s Settings) MarshalJSON() ([]byte, error) {
	type plain Settings // without this method
	return json.Marshal(struct {
		plain
		ClockSkew string `json:"clock_skew"`
	}{plain(s), s.ClockSkew.String()})
}

// Validate returns a *ScriptError with every setting out of range, or nil.
func (s Settings) Validate() error { return scriptError(s.faults()) }

func (s Settings) faults() []Fault {
	if s.MFAPassPercent < 0 || s.MFAPassPercent > 100 {
		return []Fault{{Key: "mfa_pass_percent", Problem: fmt.Sprintf("%d is not from 0 to 100", s.MFAPassPercent)}}
	}
	return nil
}

// Settings returns the settings in force.
func (s *Server) Settings() Settings { return *s.settings.Load() }

// SetSettings changes all settings at once, for calls from now on. If one is
// invalid, it changes nothing and returns an error.
func (s *Server) SetSettings(to Settings) error {
	if err := to.Validate(); err != nil {
		return fmt.Errorf("pcsim: set settings: %w", err)
	}
	s.setSettings(to)
	return nil
}

func (s *Server) setSettings(to Settings) {
	s.settings.Store(&to)
	s.mfaCalls.Store(0)
}

// microsoftNow returns the time of Microsoft's clocks.
func (s *Server) microsoftNow() time.Time { return s.cfg.Now().Add(s.Settings().ClockSkew) }

// letPass decides whether the next call without MFA passes.
func (s *Server) letPass() bool {
	percent := uint64(s.Settings().MFAPassPercent) //nolint:gosec // from 0 to 100
	n := s.mfaCalls.Add(1)
	return n*percent/100 != (n-1)*percent/100
}

// setMFAHeader reports whether a token proves MFA if the caller asks for it.
// Microsoft's answer for app-only tokens is not published; they prove none.
//
// Source: https://www.cloudcockpit.com/blog/mfa-enforcement-partner-center-apis
// (read 2026-11-21)
func setMFAHeader(out, in http.Header, c claims) {
	if c.use == useAccess && strings.EqualFold(in.Get("ValidateMfa"), "true") {
		out.Set("isMfaCompliant", strconv.FormatBool(c.mfa))
	}
}

func (s *Server) putSettings(w http.ResponseWriter, r *http.Request) {
	var to Settings
	err := readBody(w, r, &to, func() []Fault { return to.faults() }) //nolint:gocritic // to.faults would check the settings before they are read
	if err != nil {
		refuse(w, err)
		return
	}
	s.setSettings(to)
	reply(w, http.StatusOK, s.Settings())
}
