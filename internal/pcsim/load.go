package pcsim

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
)

// maxScriptBytes bounds a script file and a control request.
const maxScriptBytes = 4 << 20

// seeds is loaded by the same code as script files.
//
//go:embed seeds.yaml
var seeds string

// Load adds the customers of a YAML script. If one has the ID of an existing
// customer, it replaces it. Reset restores them. If the script has any mistake,
// Load changes nothing. The error is then a *ScriptError with every mistake,
// unless r cannot be read or is not YAML.
//
// The script is an object with the member customers: an object from customer ID
// to script; or with the member partners: an object from name to a partner, which
// has customers of its own (see AddPartner); or both. The members of a customer are those of [Customer] and [Step]; durations are
// written as 1.5s or 2m. deploy/simulator.example.yaml has an example of each.
func (s *Server) Load(r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, maxScriptBytes+1))
	if err == nil && len(text) > maxScriptBytes {
		err = fmt.Errorf("script is larger than %d bytes", maxScriptBytes)
	}
	if err != nil {
		return fmt.Errorf("pcsim: load script: %w", err)
	}
	s.partnersMu.RLock()
	customers, partners, err := parseScript(text, s.taken)
	s.partnersMu.RUnlock()
	if err != nil {
		return fmt.Errorf("pcsim: load script: %w", err)
	}
	if _, err := s.cast.put(customers, true); err != nil {
		return fmt.Errorf("pcsim: load script: %w", err)
	}
	for _, p := range partners {
		added, err := s.AddPartner(p.name, p.cfg)
		if err != nil { // unless two scripts are loaded at once
			return err
		}
		if _, err := added.cast.put(p.customers, true); err != nil {
			return fmt.Errorf("pcsim: load script: %w", err)
		}
	}
	return nil
}

// LoadFile is Load for a file; the error names it.
func (s *Server) LoadFile(path string) error {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("pcsim: load script: %w", err)
	}
	if err := s.Load(bytes.NewReader(text)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
