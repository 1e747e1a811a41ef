package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/eligibilityd/eligibilityd/bench/load"
	"github.com/eligibilityd/eligibilityd/bench/rig"
)

// The RPCs of the service.
const (
	methodCheck = "/eligibility.v1.EligibilityService/CheckEligibility"
	methodBatch = "/eligibility.v1.EligibilityService/BatchCheckEligibility"
)

// target is a server and its requests. A file of other servers to compare holds
// it as JSON.
type target struct {
	Name string `json:"name"`
	// Floor is the name of the target to compare with.
	Floor string `json:"floor,omitempty"`
	// Address is its listener; Method is a gRPC method, or empty if it is HTTP.
	Address string `json:"address"`
	Method  string `json:"method,omitempty"`
	// Requests are drawn from: encoded messages (base64 in a file), or HTTP
	// requests as they go over the wire, which Paths writes as well: one GET
	// for each.
	Requests [][]byte `json:"requests,omitempty"`
	Paths    []string `json:"paths,omitempty"`
	// AuthoritiesFile holds, in PEM, the authorities of a server with TLS, and
	// TokenFile the bearer token of each request; "" means neither.
	AuthoritiesFile string `json:"authorities_file,omitempty"`
	TokenFile       string `json:"token_file,omitempty"`
	// Processes are the process ids of the server.
	Processes []int `json:"processes"`
	// Budget is the maximum of the service's cost against this server's; if it is
	// 0, there is none.
	Budget float64 `json:"budget,omitempty"`
	// Callers is the number of concurrent requests; if it is 0, as many as
	// usual.
	Callers int `json:"callers,omitempty"`

	access load.Access

	// If service is set, the target is the service itself, whose counters are
	// read.
	service *rig.Server
	// If local is set, the local tier is to answer every request, else none.
	local bool
}

// readTargets reads a JSON file with a list of targets.
func readTargets(path string) ([]target, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return nil, err
	}
	var targets []target
	if err := json.Unmarshal(text, &targets); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range targets {
		if targets[i].access, err = targets[i].readAccess(); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return targets, nil
}

// requests returns all requests, with the token if they are HTTP.
func (t target) requests() [][]byte {
	all := t.Requests
	for _, path := range t.Paths {
		all = append(all, load.HTTPRequest("GET", path, t.access.Token, nil))
	}
	return all
}

// readAccess reads the files of authorities and token.
func (t target) readAccess() (load.Access, error) {
	var access load.Access
	if t.AuthoritiesFile != "" {
		text, err := os.ReadFile(t.AuthoritiesFile)
		if err != nil {
			return access, err
		}
		access.Authorities = x509.NewCertPool()
		if !access.Authorities.AppendCertsFromPEM(text) {
			return access, fmt.Errorf("%s: no certificate", t.AuthoritiesFile)
		}
	}
	if t.TokenFile != "" {
		text, err := os.ReadFile(t.TokenFile)
		if err != nil {
			return access, err
		}
		access.Token = strings.TrimSpace(string(text))
	}
	return access, nil
}

// dial returns a caller of the target; if it is gRPC, with that many
// connections.
func (t target) dial(connections int) (load.Caller, error) { //nolint:ireturn // either of two
	if t.Method == "" {
		return load.NewHTTP(t.Address, t.access), nil
	}
	return load.NewGRPC(t.Address, t.Method, connections, t.access)
}
