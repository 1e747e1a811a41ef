package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/bench/load"
	"github.com/eligibilityd/eligibilityd/bench/rig"
)

// The RPCs of the service.
const (
	methodCheck = "/eligibility.v1.EligibilityService/CheckEligibility"
	methodBatch = "/eligibility.v1.EligibilityService/BatchCheckEligibility"
)

// target is a server and what it is asked. Files with servers that somebody
// wants compared hold it as JSON.
type target struct {
	Name string `json:"name"`
	// Floor is the name of the target that this one is compared with.
	Floor string `json:"floor,omitempty"`
	// Address is where it listens; Method is a gRPC method, or empty for HTTP.
	Address string `json:"address"`
	Method  string `json:"method,omitempty"`
	// Requests are drawn from: encoded messages (base64 in a file), or HTTP
	// requests as they go over the wire, which Paths writes as well: one GET
	// for each.
	Requests [][]byte `json:"requests,omitempty"`
	Paths    []string `json:"paths,omitempty"`
	// Processes are the process ids of the server.
	Processes []int `json:"processes"`
	// Callers is how many requests are under way; 0 means as many as usual.
	Callers int `json:"callers,omitempty"`

	// service is set for the service itself, whose counts are then looked at.
	service *rig.Server
	// local says that every answer is to come from the local tier, else that
	// none is.
	local bool
}

// readTargets reads a JSON file with a list of targets.
func readTargets(path string) ([]target, error) {
	text, err := os.ReadFile(path) //nolint:gosec // named by who runs it
	if err != nil {
		return nil, err
	}
	var targets []target
	if err := json.Unmarshal(text, &targets); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return targets, nil
}

// requests returns everything that may be sent.
func (t target) requests() [][]byte {
	all := t.Requests
	for _, path := range t.Paths {
		all = append(all, load.HTTPRequest("GET", path, nil))
	}
	return all
}

// dial returns a caller of the target; over gRPC on so many connections.
func (t target) dial(connections int) (load.Caller, error) { //nolint:ireturn // either of two
	if t.Method == "" {
		return load.NewHTTP(t.Address), nil
	}
	return load.NewGRPC(t.Address, t.Method, connections)
}

// checkMessages are the encoded questions about so many customers.
func checkMessages(customers int) ([][]byte, error) {
	messages := make([][]byte, customers)
	for i := range messages {
		var err error
		if messages[i], err = proto.Marshal(rig.Check(i)); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// batchMessages are encoded batches of size, together about all customers but
// the last few that fill none.
func batchMessages(customers, size int) ([][]byte, error) {
	messages := make([][]byte, 0, customers)
	for first := 0; first+size <= customers; first += size {
		message, err := proto.Marshal(rig.Batch(first, size))
		if err != nil {
			return nil, err
		}
		messages = append(messages, message)
	}
	return messages, nil
}

// checkPaths are the paths of the questions about so many customers.
func checkPaths(customers int) []string {
	paths := make([]string, customers)
	for i := range paths {
		paths[i] = rig.Path(i)
	}
	return paths
}
