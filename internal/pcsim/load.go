package pcsim

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxScriptBytes bounds a script file and a control request.
const maxScriptBytes = 4 << 20

// seeds is loaded by the very same loader as everybody's files.
//
//go:embed seeds.yaml
var seeds string

// Load adds the customers of a YAML script, or replaces those that there are.
// Reset returns to them. It takes all of them or, on any mistake, none: then
// the error is a *ScriptError that names every mistake by key and line, or
// says that r could not be read or is no YAML.
//
// The script is an object with the member customers: an object from customer
// id to script. Its members are those of [Customer] and [Step]; durations are
// written as 1.5s or 2m. deploy/simulator.example.yaml shows each of them.
func (s *Server) Load(r io.Reader) error {
	customers, err := parseScript(r)
	if err != nil {
		return fmt.Errorf("pcsim: load script: %w", err)
	}
	if _, err := s.cast.put(customers, true); err != nil {
		return fmt.Errorf("pcsim: load script: %w", err)
	}
	return nil
}

// LoadFile is Load for a file; the error names it.
func (s *Server) LoadFile(path string) error {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("pcsim: load script: %w", err)
	}
	if err := s.Load(strings.NewReader(string(text))); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseScript(r io.Reader) ([]Customer, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxScriptBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxScriptBytes {
		return nil, fmt.Errorf("script is larger than %d bytes", maxScriptBytes)
	}
	root, err := yamlTree(text)
	if err != nil {
		return nil, err
	}
	d := newReader()
	customers := d.script(root)
	return customers, scriptError(d.faults)
}

// yamlTree reads the only document of a YAML text.
func yamlTree(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("script is empty")
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("script holds more than one YAML document")
	}
	return doc.Content[0], nil
}
