package main

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/bench/load"
	"github.com/eligibilityd/eligibilityd/bench/rig"
)

// The measured servers, by their names in tables.
const (
	nameFloorGRPC     = "bare grpc-go"
	nameGRPC          = "grpc"
	nameGRPCRedis     = "grpc, redis" //nolint:gosec // no credential
	nameBatch         = "batch of 100"
	nameBatch1000     = "batch of 1000"
	nameBatchRedis    = "batch of 100, redis"
	nameFloorHTTP     = "bare net/http"
	nameREST          = "rest"
	nameRESTRedis     = "rest, redis"
	nameRESTBatch     = "rest, batch of 100"
	nameRESTBatch1000 = "rest, batch of 1000"
	nameGateway       = "self-dialling gateway"

	nameGRPCLogged  = "grpc, decision log"
	nameBatchLogged = "batch of 100, decision log"
	nameRESTLogged  = "rest, decision log"

	nameFloorGRPCTLS = "bare grpc-go, tls"
	nameGRPCTLS      = "grpc, tls, token"
	nameFloorHTTPTLS = "bare net/http, tls"
	nameRESTTLS      = "rest, tls, token"

	// beforeSuffix follows the name of a server that is the baseline.
	beforeSuffix = ", before"
)

// batchCallers is the number of callers of batches of more than fewItems: such a
// batch is many concurrent checks.
const (
	batchCallers = 8
	fewItems     = 10
)

// The scenarios besides the comparisons: the open loop of the selected ones,
// and the start of the service.
const (
	scenarioOpen = "open"
	scenarioDev  = "dev"
)

// scenarioItems compares the cost of an item of batches of each size.
const scenarioItems = "items"

// unit is how two servers are compared.
type unit string

const (
	unitRatio unit = "×"          // one divided by the other
	unitItem  unit = "µs an item" // of CPU, one divided by the items of its batch
)

// comparison compares the cost of a request on two servers, or that of a batch
// with its size.
type comparison struct {
	// scenario is the name by which a user selects it.
	scenario string
	of, to   string
	unit     unit
	// budget is the maximum; if it is 0, there is none.
	budget float64
	// items is the size of the batch of a unitItem.
	items int
}

// comparisons are the budgets of the service; docs/performance.md explains them.
func comparisons() []comparison {
	all := []comparison{
		{scenario: "grpc", of: nameGRPC, to: nameFloorGRPC, budget: 0.95},
		{scenario: "redis", of: nameGRPCRedis, to: nameFloorGRPC, budget: 1.5},
		{scenario: "batch", of: nameBatch, to: nameGRPC, budget: 6},
		{scenario: "batch-1000", of: nameBatch1000, to: nameGRPC, budget: 50},
		{scenario: "batch-redis", of: nameBatchRedis, to: nameGRPC, budget: 20},
		{scenario: "rest", of: nameREST, to: nameFloorHTTP, budget: 1.4},
		{scenario: "rest-redis", of: nameRESTRedis, to: nameFloorHTTP, budget: 2},
		{scenario: "rest-batch", of: nameRESTBatch, to: nameGRPC, budget: 12},
		{scenario: "gateway", of: nameREST, to: nameGateway, budget: 0.3},
		{scenario: "grpc-tls", of: nameGRPCTLS, to: nameFloorGRPCTLS, budget: 0.95},
		{scenario: "rest-tls", of: nameRESTTLS, to: nameFloorHTTPTLS, budget: 1.4},
		{scenario: "record", of: nameGRPCLogged, to: nameGRPC, budget: 1.15},
		{scenario: "record-batch", of: nameBatchLogged, to: nameBatch},
		{scenario: "record-rest", of: nameRESTLogged, to: nameREST, budget: 1.15},
	}
	for i := range all {
		all[i].unit = unitRatio
	}
	for _, transport := range []string{"", "rest, "} {
		for _, size := range []int{1, 10, 100, 1000} {
			all = append(all, comparison{scenario: scenarioItems, of: fmt.Sprintf("%sbatch of %d", transport, size), unit: unitItem, items: size})
		}
	}
	return all
}

// scenarioNames are the names that a user may select.
func scenarioNames() []string {
	var names []string
	for _, c := range comparisons() {
		names = append(names, c.scenario)
	}
	return append(slices.Compact(names), scenarioOpen, scenarioDev)
}

// selected returns the comparisons of the scenarios. If there is a baseline, each
// is followed by the same of the baseline, which has no budget.
func selected(scenarios []string, baseline bool) []comparison {
	var wanted []comparison
	for _, c := range comparisons() {
		if !slices.Contains(scenarios, c.scenario) {
			continue
		}
		wanted = append(wanted, c)
		if baseline {
			c.of, c.budget = c.of+beforeSuffix, 0
			if c.to != "" && !isFloor(c.to) {
				c.to += beforeSuffix
			}
			wanted = append(wanted, c)
		}
	}
	return wanted
}

// spec describes a target by its server and what that is asked.
type spec struct {
	name   string
	server rig.Name
	rest   bool
	batch  int // the size; 0 is a single check
}

// specs are all targets but those of the baseline, those of a transport beside
// each other.
func specs() []spec {
	return []spec{
		{nameFloorGRPC, rig.FloorGRPC, false, 0},
		{nameGRPC, rig.Local, false, 0},
		{nameGRPCRedis, rig.Shared, false, 0},
		{nameGRPCLogged, rig.Logged, false, 0},
		{"batch of 1", rig.Local, false, 1},
		{"batch of 10", rig.Local, false, 10},
		{nameBatch, rig.Local, false, 100},
		{nameBatch1000, rig.Local, false, 1000},
		{nameBatchLogged, rig.Logged, false, 100},
		{nameBatchRedis, rig.Shared, false, 100},
		{nameFloorHTTP, rig.FloorHTTP, true, 0},
		{nameREST, rig.Local, true, 0},
		{nameRESTLogged, rig.Logged, true, 0},
		{nameRESTRedis, rig.Shared, true, 0},
		{"rest, batch of 1", rig.Local, true, 1},
		{"rest, batch of 10", rig.Local, true, 10},
		{nameRESTBatch, rig.Local, true, 100},
		{nameRESTBatch1000, rig.Local, true, 1000},
		{nameGateway, rig.FloorGateway, true, 0},
		{nameFloorGRPCTLS, rig.FloorGRPCTLS, false, 0},
		{nameGRPCTLS, rig.Secure, false, 0},
		{nameFloorHTTPTLS, rig.FloorHTTPTLS, true, 0},
		{nameRESTTLS, rig.Secure, true, 0},
	}
}

func isFloor(name string) bool {
	return slices.ContainsFunc(specs(), func(s spec) bool { return s.name == name && s.server.Floor() })
}

// needed returns the specs of the comparisons, those of the baseline included.
func needed(wanted []comparison) []spec {
	var all []spec
	for _, s := range specs() {
		before := s
		before.name, before.server = s.name+beforeSuffix, s.server.Before()
		for _, s := range []spec{s, before} {
			if slices.ContainsFunc(wanted, func(c comparison) bool { return s.name == c.of || s.name == c.to }) {
				all = append(all, s)
			}
		}
	}
	return all
}

// serversOf returns the servers of the specs.
func serversOf(all []spec) []rig.Name {
	var names []rig.Name
	for _, s := range all {
		if !slices.Contains(names, s.server) {
			names = append(names, s.server)
		}
	}
	return names
}

// targetsOf returns the targets that the specs describe.
func targetsOf(r *rig.Rig, customers int, all []spec) ([]target, error) {
	requests := map[spec][][]byte{} // by rest and batch
	var targets []target
	for _, s := range all {
		server := r.Servers[s.server]
		t := target{Name: s.name, Address: server.GRPC, Method: methodCheck, Processes: []int{server.PID}}
		if s.server.TLS() {
			t.access = r.Access
		}
		if s.rest {
			t.Address, t.Method = server.HTTP, ""
		} else if s.batch > 0 {
			t.Method = methodBatch
		}
		if s.batch > fewItems {
			t.Callers = batchCallers
		}
		if !s.server.Floor() {
			t.service, t.local = &server, s.server != rig.Shared && s.server != rig.Shared.Before()
		}
		kind := spec{rest: s.rest, batch: s.batch}
		if kind.rest && t.access.Token != "" {
			kind.name = nameRESTTLS // whose requests hold the token
		}
		if requests[kind] == nil {
			var err error
			if requests[kind], err = requestsOf(kind, customers, t.access.Token); err != nil {
				return nil, err
			}
		}
		t.Requests = requests[kind]
		targets = append(targets, t)
	}
	return targets, nil
}

// requestsOf returns the encoded requests about that many customers: a question
// about each, or batches that cover them. If the last ones do not fill a batch, they
// are left out. A batch holds customers that lie apart in the tiers, which were filled
// in order.
func requestsOf(kind spec, customers int, token string) ([][]byte, error) {
	size := max(kind.batch, 1)
	all := make([][]byte, 0, customers/size)
	shuffled := rand.New(rand.NewPCG(1, 2)).Perm(customers) //nolint:gosec // the same for all that are compared
	for first := 0; first+size <= customers; first += size {
		var message []byte
		var err error
		switch {
		case kind.batch == 0 && kind.rest:
			message = load.HTTPRequest("GET", rig.Path(first), token, nil)
		case kind.batch == 0:
			message, err = proto.Marshal(rig.Check(first))
		case kind.rest:
			if message, err = protojson.Marshal(rig.Batch(shuffled[first : first+size])); err == nil {
				message = load.HTTPRequest("POST", rig.BatchPath, token, message)
			}
		default:
			message, err = proto.Marshal(rig.Batch(shuffled[first : first+size]))
		}
		if err != nil {
			return nil, err
		}
		all = append(all, message)
	}
	return all, nil
}
