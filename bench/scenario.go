package main

import (
	"slices"

	"github.com/eligibilityd/eligibilityd/bench/rig"
)

// The measured servers, by their names in tables.
const (
	nameFloorGRPC  = "bare grpc-go"
	nameGRPC       = "grpc"
	nameGRPCRedis  = "grpc, redis" //nolint:gosec // no credential
	nameBatch      = "batch of 100"
	nameBatchRedis = "batch of 100, redis"
	nameFloorHTTP  = "bare net/http"
	nameREST       = "rest"
	nameRESTRedis  = "rest, redis"
	nameGateway    = "self-dialling gateway"

	nameGRPCLogged  = "grpc, decision log"
	nameBatchLogged = "batch of 100, decision log"
	nameRESTLogged  = "rest, decision log"

	nameFloorGRPCTLS = "bare grpc-go, tls"
	nameGRPCTLS      = "grpc, tls, token"
	nameFloorHTTPTLS = "bare net/http, tls"
	nameRESTTLS      = "rest, tls, token"
)

const (
	batchSize    = 100
	batchCallers = 8 // a batch is a hundred concurrent checks
)

// The scenarios besides the comparisons: the open loop of the selected ones,
// and the start of the service.
const (
	scenarioOpen = "open"
	scenarioDev  = "dev"
)

// unit is how two servers are compared.
type unit string

const (
	unitRatio        unit = "×"  // one divided by the other
	unitMicroseconds unit = "µs" // of CPU, one less the other
)

// comparison compares the cost of a request on two servers.
type comparison struct {
	// scenario is the name by which a user selects it.
	scenario string
	of, to   string
	unit     unit
	// budget is the maximum; if it is 0, there is none.
	budget float64
}

// comparisons are the budgets of the service; docs/performance.md explains them.
func comparisons() []comparison {
	return []comparison{
		{"grpc", nameGRPC, nameFloorGRPC, unitRatio, 1.0},
		{"redis", nameGRPCRedis, nameFloorGRPC, unitMicroseconds, 15},
		{"batch", nameBatch, nameGRPC, unitRatio, 6},
		{"batch-redis", nameBatchRedis, nameGRPC, unitRatio, 0},
		{"rest", nameREST, nameFloorHTTP, unitRatio, 1.6},
		{"rest-redis", nameRESTRedis, nameFloorHTTP, unitMicroseconds, 15},
		{"gateway", nameREST, nameGateway, unitRatio, 0.3},
		{"grpc-tls", nameGRPCTLS, nameFloorGRPCTLS, unitRatio, 0.95},
		{"rest-tls", nameRESTTLS, nameFloorHTTPTLS, unitRatio, 1.4},
		{"record", nameGRPCLogged, nameGRPC, unitRatio, 1.15},
		{"record-batch", nameBatchLogged, nameBatch, unitRatio, 0},
		{"record-rest", nameRESTLogged, nameREST, unitRatio, 1.15},
	}
}

// scenarioNames are the names that a user may select.
func scenarioNames() []string {
	var names []string
	for _, c := range comparisons() {
		names = append(names, c.scenario)
	}
	return append(names, scenarioOpen, scenarioDev)
}

// selected returns the comparisons of the scenarios.
func selected(scenarios []string) []comparison {
	return slices.DeleteFunc(comparisons(), func(c comparison) bool { return !slices.Contains(scenarios, c.scenario) })
}

// targetsOf returns the targets that the comparisons need, those of a transport
// beside each other.
func targetsOf(r *rig.Rig, customers int, wanted []comparison) ([]target, error) {
	checks, err := checkMessages(customers)
	if err != nil {
		return nil, err
	}
	batches, err := batchMessages(customers, batchSize)
	if err != nil {
		return nil, err
	}
	paths := checkPaths(customers)
	all := []target{
		{Name: nameFloorGRPC, Address: r.FloorGRPC.GRPC, Method: methodCheck, Requests: checks, Processes: []int{r.FloorGRPC.PID}},
		{Name: nameGRPC, Address: r.Local.GRPC, Method: methodCheck, Requests: checks, service: &r.Local, local: true},
		{Name: nameGRPCRedis, Address: r.Shared.GRPC, Method: methodCheck, Requests: checks, service: &r.Shared},
		{Name: nameGRPCLogged, Address: r.Logged.GRPC, Method: methodCheck, Requests: checks, service: &r.Logged, local: true},
		{Name: nameBatch, Address: r.Local.GRPC, Method: methodBatch, Requests: batches, Callers: batchCallers, service: &r.Local, local: true},
		{Name: nameBatchLogged, Address: r.Logged.GRPC, Method: methodBatch, Requests: batches, Callers: batchCallers, service: &r.Logged, local: true},
		{Name: nameBatchRedis, Address: r.Shared.GRPC, Method: methodBatch, Requests: batches, Callers: batchCallers, service: &r.Shared},
		{Name: nameFloorHTTP, Address: r.FloorHTTP.HTTP, Paths: paths, Processes: []int{r.FloorHTTP.PID}},
		{Name: nameREST, Address: r.Local.HTTP, Paths: paths, service: &r.Local, local: true},
		{Name: nameRESTLogged, Address: r.Logged.HTTP, Paths: paths, service: &r.Logged, local: true},
		{Name: nameRESTRedis, Address: r.Shared.HTTP, Paths: paths, service: &r.Shared},
		{Name: nameGateway, Address: r.Gateway.HTTP, Paths: paths, Processes: []int{r.Gateway.PID}},
		{Name: nameFloorGRPCTLS, Address: r.FloorGRPCTLS.GRPC, Method: methodCheck, Requests: checks, Processes: []int{r.FloorGRPCTLS.PID}, access: r.Access},
		{Name: nameGRPCTLS, Address: r.Secure.GRPC, Method: methodCheck, Requests: checks, service: &r.Secure, local: true, access: r.Access},
		{Name: nameFloorHTTPTLS, Address: r.FloorHTTPTLS.HTTP, Paths: paths, Processes: []int{r.FloorHTTPTLS.PID}, access: r.Access},
		{Name: nameRESTTLS, Address: r.Secure.HTTP, Paths: paths, service: &r.Secure, local: true, access: r.Access},
	}
	var needed []target
	for _, t := range all {
		if !slices.ContainsFunc(wanted, func(c comparison) bool { return t.Name == c.of || t.Name == c.to }) {
			continue
		}
		if t.service != nil {
			t.Processes = []int{t.service.PID}
		}
		needed = append(needed, t)
	}
	return needed, nil
}
