package eligibilitytest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/eligibilitytest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// reason returns the code of the first reason of a decision, or the reason of an
// error.
func reason(answer *eligibilityv1.CheckEligibilityResponse, err error) string {
	if err == nil {
		return strings.TrimPrefix(answer.GetReasons()[0].GetCode().String(), "REASON_CODE_")
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return err.Error()
}

func TestEveryCustomerThatCanBeScriptedIsAnsweredSo(t *testing.T) {
	t.Parallel()
	service := eligibilitytest.New(t, eligibilitytest.Config{})
	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	for want, customer := range map[string]eligibilitytest.Customer{
		"ACCOUNT_ALLOWED":             {Account: eligibilitytest.Allowed},
		"ACCOUNT_HAS_NO_STATUS":       {Account: eligibilitytest.NoStatus},
		"ACCOUNT_UNDER_REVIEW":        {Account: eligibilitytest.UnderReview},
		"ACCOUNT_NOT_ALLOWED":         {Account: eligibilitytest.NotAllowed},
		"ACCOUNT_UNKNOWN":             {Account: eligibilitytest.Unknown},
		"ACCOUNT_NOT_READY":           {Account: eligibilitytest.NotReady},
		"ACCOUNT_STATUS_UNRECOGNIZED": {Account: "Paused"},

		"CUSTOMER_NOT_FOUND":              {Failure: eligibilitytest.CustomerNotFound},
		"CUSTOMER_NOT_SERVED":             {Failure: eligibilitytest.CustomerNotServed},
		"PARTNER_CENTER_UNAVAILABLE":      {Failure: eligibilitytest.PartnerCenterUnavailable},
		"PARTNER_CENTER_THROTTLED":        {Failure: eligibilitytest.PartnerCenterThrottled},
		"PARTNER_CENTER_CREDENTIALS":      {Failure: eligibilitytest.PartnerCenterCredentials},
		"PARTNER_CENTER_INVALID_RESPONSE": {Failure: eligibilitytest.PartnerCenterInvalidResponse},
		"DEADLINE_EXCEEDED":               {Failure: eligibilitytest.DeadlineExceeded},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			id := uuid.NewString()
			if err := service.Set(id, customer); err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			if customer.Failure == eligibilitytest.DeadlineExceeded {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
			}
			got := reason(client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: id}))
			if got != want {
				t.Errorf("answered %s", got)
			}
		})
	}
}

func TestServicesRunSideBySide(t *testing.T) {
	t.Parallel()
	var services []*eligibilitytest.Service
	for _, account := range []string{eligibilitytest.Allowed, eligibilitytest.NotAllowed} {
		services = append(services, eligibilitytest.New(t, eligibilitytest.Config{Default: &eligibilitytest.Customer{Account: account}}))
	}
	for i, want := range []string{"ACCOUNT_ALLOWED", "ACCOUNT_NOT_ALLOWED"} {
		client := eligibilityv1.NewEligibilityServiceClient(services[i].Conn)
		if got := reason(client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: contoso})); got != want {
			t.Errorf("service %d answers %s, not %s", i, got, want)
		}
	}
}

func TestEnvironOverridesTheConfiguration(t *testing.T) {
	t.Parallel()
	service := eligibilitytest.New(t, eligibilitytest.Config{
		Default: &eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterUnavailable},
		Environ: []string{"ELIGIBILITY_POLICY__WHEN_UNDECIDABLE=block"},
	})
	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	if got := reason(client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: contoso})); got != "UNDECIDABLE" {
		t.Errorf("answered %s", got)
	}
}

func TestMistakesAreReported(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]eligibilitytest.Config{
		"not a GUID":              {Customers: map[string]eligibilitytest.Customer{"contoso": {Account: "Allowed"}}},
		"needs an Account":        {Customers: map[string]eligibilitytest.Customer{contoso: {}}},
		"the unknown Failure":     {Default: &eligibilitytest.Customer{Failure: "BROKEN"}},
		"a negative RetryAfter":   {Default: &eligibilitytest.Customer{Account: "Allowed", RetryAfter: -1}},
		"ELIGIBILITY_POLICY__NOT": {Environ: []string{"ELIGIBILITY_POLICY__NOT=known"}},
	} {
		if service, err := eligibilitytest.Start(cfg); err == nil {
			t.Errorf("%s: started", name)
			_ = service.Close()
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A caller has a module of its own, in which the replace directive of this one has
// no effect.
func TestAnotherModuleCanImportThePackage(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/checkout\n\ngo 1.26.0\n\n" +
			"require github.com/eligibilityd/eligibilityd v0.0.0\n" +
			"require github.com/eligibilityd/eligibilityd/gen v0.0.0\n" +
			"replace github.com/eligibilityd/eligibilityd => " + root + "\n" +
			"replace github.com/eligibilityd/eligibilityd/gen => " + filepath.Join(root, "gen") + "\n",
		"go.sum":      string(sums),
		"checkout.go": "package checkout\n",
		"checkout_test.go": "package checkout_test\n\nimport (\n" +
			"\t_ \"github.com/eligibilityd/eligibilityd/eligibilitytest\"\n\t_ \"github.com/eligibilityd/eligibilityd/gen/eligibility/v1\"\n)\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-mod=mod", "-test", "-deps", "./...")
	list.Dir = dir
	list.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off")
	if out, err := list.CombinedOutput(); err != nil || !strings.Contains(string(out), "\ngithub.com/eligibilityd/eligibilityd/eligibilitytest\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Each partner has customers of its own, also a customer of several.
func TestEachPartnerHasAnswersOfItsOwn(t *testing.T) {
	t.Parallel()
	const shared = "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a"
	service := eligibilitytest.New(t, eligibilitytest.Config{
		Partners: map[string]eligibilitytest.Partner{
			"eu": {Customers: map[string]eligibilitytest.Customer{shared: {Account: eligibilitytest.Allowed}}},
			"us": {Default: &eligibilitytest.Customer{Account: eligibilitytest.NotAllowed}},
		},
		DefaultPartner: "us",
	})
	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	for partner, want := range map[string]string{"eu": "ACCOUNT_ALLOWED", "us": "ACCOUNT_NOT_ALLOWED", "": "ACCOUNT_NOT_ALLOWED", "uk": "INVALID_ARGUMENT"} {
		if got := reason(client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: shared, Partner: partner})); got != want {
			t.Errorf("%q: %s, want %s", partner, got, want)
		}
	}
	if err := service.SetFor("eu", shared, eligibilitytest.Customer{Account: eligibilitytest.UnderReview}); err != nil {
		t.Fatal(err)
	}
	if err := service.Set(shared, eligibilitytest.Customer{Account: eligibilitytest.Unknown}); err != nil {
		t.Fatal(err)
	}
	service.Advance(time.Hour)
	for partner, want := range map[string]string{"eu": "ACCOUNT_UNDER_REVIEW", "us": "ACCOUNT_UNKNOWN"} {
		if got := reason(client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: shared, Partner: partner})); got != want {
			t.Errorf("%q: %s, want %s", partner, got, want)
		}
	}
	if err := service.SetFor("uk", shared, eligibilitytest.Customer{Account: eligibilitytest.Allowed}); err == nil {
		t.Error("a customer of no partner was set")
	}
	for name, cfg := range map[string]eligibilitytest.Config{
		"a name that is none":  {Partners: map[string]eligibilitytest.Partner{"E U": {}}},
		"an unknown default":   {Partners: map[string]eligibilitytest.Partner{"eu": {}}, DefaultPartner: "us"},
		"customers of no one":  {Partners: map[string]eligibilitytest.Partner{"eu": {}}, Default: &eligibilitytest.Customer{Account: eligibilitytest.Allowed}},
		"no partner":           {Partners: map[string]eligibilitytest.Partner{}},
		"impossible customers": {Partners: map[string]eligibilitytest.Partner{"eu": {}, "us": {Default: &eligibilitytest.Customer{}}}},
	} {
		if started, err := eligibilitytest.Start(cfg); err == nil {
			_ = started.Close()
			t.Errorf("%s: started", name)
		}
	}
}
