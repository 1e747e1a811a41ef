package main_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/eligibilityd/eligibilityd/"

// mayImport is the package map: importing package → packages of this module
// that it may import, tests apart. A package that is missing here fails the
// test: draw it into the map (docs/architecture.md) first.
//
// The service is built in layers, and imports point to the one below:
// eligibility ← evidence ← {cache, pcclient, api} ← {rest, server} ← app ← commands.
// The packages of one layer do not import each other.
var mayImport = map[string][]string{
	"internal/eligibility": {}, // and the standard library only
	"internal/evidence":    {"internal/allowance", "internal/eligibility"},
	"internal/budget":      {"internal/evidence"},
	"internal/changes":     {"internal/eligibility", "internal/health"},
	"internal/decisionlog": {"internal/eligibility", "internal/health", "internal/jsontext", "internal/logging"},
	"internal/reviews":     {"internal/eligibility", "internal/evidence"},
	"internal/webhooks":    {"internal/changes", "internal/eligibility", "internal/evidence", "internal/health", "internal/logging", "internal/loopback", "internal/remote"},

	"internal/cache":    {"internal/allowance", "internal/breaker", "internal/budget", "internal/changes", "internal/eligibility", "internal/evidence", "internal/health", "internal/identity", "internal/logging", "internal/remote", "internal/reviews", "internal/webhooks"},
	"internal/pcclient": {"internal/breaker", "internal/budget", "internal/eligibility", "internal/evidence", "internal/health", "internal/identity", "internal/remote", "internal/tokenstore"},
	"internal/api":      {"internal/access", "internal/allowance", "internal/changes", "internal/decisionlog", "internal/eligibility", "internal/evidence", "internal/jsontext", "internal/logging", "internal/reviews", "gen/eligibility/v1"},

	"internal/rest":    {"internal/access", "internal/api", "internal/eligibility", "internal/loopback", "gen/eligibility/v1", "internal/gateway/eligibility/v1"},
	"internal/console": {"internal/access", "internal/api", "internal/decisionlog", "internal/eligibility", "internal/health", "internal/logging", "internal/loopback", "gen/eligibility/v1"},
	"internal/server":  {"internal/access", "internal/api", "internal/eligibility", "internal/health", "internal/logging", "internal/loopback", "internal/reload"},

	"internal/app": {
		"internal/access", "internal/allowance", "internal/api", "internal/budget", "internal/cache", "internal/changes", "internal/config", "internal/console", "internal/decisionlog", "internal/eligibility", "internal/evidence", "internal/health", "internal/identity", "internal/logging",
		"internal/otlpmetrics", "internal/pcclient", "internal/reload", "internal/rest", "internal/reviews", "internal/server", "internal/tokenstore", "internal/tracing", "internal/webhooks",
	},

	"cmd/eligibilityd": {
		"internal/access", "internal/app", "internal/doctor", "internal/config", "internal/decisionlog", "internal/eligibility", "internal/evidence", "internal/pcclient", "internal/cache",
		"internal/server", "internal/logging", "internal/loopback", "internal/pcsim", "internal/remote",
		"internal/tokenstore", "internal/webhooks", "gen/eligibility/v1",
	},
	"internal/doctor": {"internal/access", "internal/app", "internal/budget", "internal/cache", "internal/config", "internal/decisionlog", "internal/identity", "internal/loopback", "internal/pcclient", "internal/remote", "internal/tokenstore", "internal/webhooks"},

	// Any layer may import these; they do not depend on the service.
	"internal/access":      {"internal/health", "internal/reload", "internal/remote"},
	"internal/allowance":   {},
	"internal/breaker":     {},
	"internal/health":      {},
	"internal/jsontext":    {},
	"internal/config":      {"internal/access", "internal/loopback"},
	"internal/logging":     {},
	"internal/loopback":    {},
	"internal/reload":      {},
	"internal/remote":      {"internal/loopback"},
	"internal/identity":    {"internal/remote"},
	"internal/tokenstore":  {"internal/identity", "internal/loopback", "internal/remote"},
	"internal/otlpmetrics": {"internal/health", "internal/logging", "internal/tracing"},
	"internal/tracing":     {"internal/health", "internal/logging"},
	"internal/pcsim":       {},

	"gen/eligibility/v1":              {},
	"internal/gateway/eligibility/v1": {"gen/eligibility/v1"}, // generated

	"eligibilitytest": {"internal/api", "internal/app", "internal/config", "internal/eligibility", "internal/evidence"}, // public

	// For tests only.
	"internal/access/accesstest":     {},
	"internal/api/apitest":           {"internal/access", "internal/changes", "internal/eligibility", "internal/evidence", "gen/eligibility/v1"},
	"internal/cache/cachetest":       {"internal/access/accesstest", "internal/eligibility", "internal/evidence"},
	"internal/doctor/doctortest":     {"internal/pcsim"},
	"internal/pcsim/pcsimtest":       {"internal/pcsim"},
	"internal/identity/identitytest": {},
	"internal/referencetest":         {},
	"internal/server/servertest":     {"internal/api", "internal/api/apitest", "internal/changes", "internal/eligibility", "internal/evidence", "internal/rest", "internal/server", "gen/eligibility/v1"},
	"internal/tokenstore/vaulttest":  {},
	"internal/tracing/tracingtest":   {},

	// The benchmark sees the service from outside only, as its callers do.
	"bench":       {"bench/load", "bench/rig", "bench/floor", "gen/eligibility/v1"},
	"bench/load":  {},
	"bench/rig":   {"bench/load", "gen/eligibility/v1"},
	"bench/floor": {"gen/eligibility/v1", "internal/gateway/eligibility/v1"},

	"bench/scaling": {"internal/eligibility"},

	// Tests of the Helm chart.
	"deploy/chart": {},

	// What callers import, and examples of callers.
	"client":            {"gen/eligibility/v1"},
	"examples/pipeline": {"gen/eligibility/v1"},
	"examples/shop":     {"client", "gen/eligibility/v1"},
}

// listed is what the tests read of go list's answer.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string

	TestGoFiles, XTestGoFiles []string
	TestImports, XTestImports []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	args = append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports,Deps,TestGoFiles,XTestGoFiles,TestImports,XTestImports"}, args...)
	out, err := exec.CommandContext(t.Context(), "go", args...).Output() //nolint:gosec // our own package paths
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %s", failed.Stderr)
		}
		t.Fatal(err)
	}
	var packages []listed
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsFollowThePackageMap(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, module+"...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, drawn := mayImport[name]
		if !drawn {
			t.Errorf("%s is not in the package map", name)
			continue
		}
		for _, imported := range p.Imports {
			ours, isOurs := strings.CutPrefix(imported, module)
			if !isOurs {
				continue
			}
			if !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which the package map does not allow", name, ours)
			}
		}
	}
}

// onlyIn names the packages that may import a library whose types and failures
// must not spread.
var onlyIn = map[string][]string{
	"github.com/Azure/":      {"internal/identity", "internal/tokenstore", "internal/tokenstore/vaulttest"},
	"github.com/spf13/cobra": {"cmd/eligibilityd", "bench"},

	"github.com/grpc-ecosystem/grpc-gateway/": {"internal/rest", "internal/gateway/eligibility/v1", "bench/floor"},
}

func TestLibrariesStayInTheirPackage(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, module+"...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		for library, allowed := range onlyIn {
			for _, imported := range p.Imports {
				if strings.HasPrefix(imported, library) && !slices.Contains(allowed, name) {
					t.Errorf("%s imports %s, which only %v may", name, imported, allowed)
				}
			}
		}
	}
}

// The safety rule depends on nothing that can change without a new Go release.
func TestThePureRuleImportsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	rule := goList(t, module+"internal/eligibility")[0]
	for _, dep := range rule.Deps {
		if root, _, _ := strings.Cut(dep, "/"); strings.Contains(root, ".") {
			t.Errorf("internal/eligibility depends on %s", dep)
		}
	}
	for _, impure := range []string{"context", "net", "net/http", "os", "os/exec", "log", "sync", "syscall"} {
		if slices.Contains(rule.Imports, impure) {
			t.Errorf("internal/eligibility imports %s", impure)
		}
	}
}

// Callers import gen and client: what these require, they download. Examples show callers
// that need no more.
func TestTheModulesForCallersNeedGRPCAndProtobufOnly(t *testing.T) {
	t.Parallel()
	for _, dep := range goList(t, "-deps", module+"gen/...", module+"client/...", module+"examples/...") {
		root, _, _ := strings.Cut(dep.ImportPath, "/")
		known := !strings.Contains(root, ".") || slices.ContainsFunc([]string{
			module + "gen/", module + "client", module + "examples/", "google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc", "golang.org/x/",
		}, func(prefix string) bool { return strings.HasPrefix(dep.ImportPath, prefix) })
		if !known {
			t.Errorf("gen, client or an example needs %s", dep.ImportPath)
		}
	}
}

// No test code may be part of the binary that operators run.
func TestNoTestCodeInTheBinary(t *testing.T) {
	t.Parallel()
	for _, dep := range goList(t, module+"cmd/eligibilityd")[0].Deps {
		root, _, _ := strings.Cut(dep, "/")
		standard := !strings.Contains(root, ".")
		if dep == "testing" || strings.HasPrefix(dep, "testing/") || !standard && strings.HasSuffix(dep, "test") {
			t.Errorf("the binary contains %s", dep)
		}
	}
}

// No test may leave a goroutine behind.
func TestAllTestsLookForGoroutinesLeftBehind(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, module+"...") {
		tested := len(p.TestGoFiles)+len(p.XTestGoFiles) > 0
		if tested && !slices.Contains(slices.Concat(p.TestImports, p.XTestImports), "go.uber.org/goleak") {
			t.Errorf("%s has tests and no goleak", p.ImportPath)
		}
	}
}
