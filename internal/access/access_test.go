package access_test

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock has a time of day that can be set, and time that passes.
type clock struct {
	set, passed atomic.Int64 // what was added to the real ones
}

func (c *clock) now() time.Time         { return time.Now().Add(time.Duration(c.set.Load())) }
func (c *clock) elapsed() time.Duration { return time.Hour + time.Duration(c.passed.Load()) }

// pass lets d pass on both.
func (c *clock) pass(d time.Duration) {
	c.set.Add(int64(d))
	c.passed.Add(int64(d))
}

const staticToken = "static-token-of-the-pipeline-0123456789"

func sumOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// rig is an Authenticator with an issuer, a token file and a certificate.
type rig struct {
	*access.Authenticator

	issuer   *accesstest.Issuer
	clock    *clock
	tokens   string
	registry *prometheus.Registry
}

func configOf(issuer *accesstest.Issuer) access.Issuer {
	return access.Issuer{
		Issuer: issuer.URL, Audiences: []string{accesstest.Audience, "second"}, Algorithms: []string{"RS256", "ES256"},
		CallerClaim: "azp", RightsClaim: "roles",
	}
}

func newRig(t testing.TB, change func(*access.Config)) *rig {
	t.Helper()
	r := &rig{issuer: accesstest.NewIssuer(t), clock: &clock{}, tokens: filepath.Join(t.TempDir(), "tokens.yaml"), registry: prometheus.NewRegistry()}
	r.write(t, entry("pipeline", staticToken, time.Hour, "[batch]"))
	cfg := access.Config{
		Certificates: []access.CertificateCaller{
			{Caller: "checkout", URI: "spiffe://shop.example/checkout"},
			{Caller: "legacy", DNS: "legacy.shop.example"},
			{Caller: "legacy", URI: "spiffe://shop.example/legacy"},
		},
		TokensFile: r.tokens,
		JWT:        []access.Issuer{configOf(r.issuer)},
		Callers: map[string]access.Grant{
			"checkout": {Rights: []string{"check", "fresh"}, Partners: []string{"eu"}},
			"legacy":   {Rights: []string{"check"}},
			"pipeline": {Rights: []string{"support"}, Partners: []string{"us"}},
		},
		Logger: zap.NewNop(), Registerer: r.registry,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Authenticator, err = access.NewWithClock(cfg, r.clock.now, r.clock.elapsed); err != nil {
		t.Fatal(err)
	}
	r.fetch(t)
	return r
}

func (r *rig) write(t testing.TB, content string) {
	t.Helper()
	if err := os.WriteFile(r.tokens, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) fetch(t testing.TB) {
	t.Helper()
	if err := r.FetchKeys(t.Context(), r.issuer.URL); err != nil {
		t.Fatal(err)
	}
}

// try returns the caller and the rights, or the cause of a failure.
func (r *rig) try(authorization ...string) string {
	caller, err := r.Authenticate(access.Credentials{Authorization: authorization})
	return outcome(caller, err)
}

func outcome(caller *access.Caller, err error) string {
	if err != nil {
		return access.CauseOf(err)
	}
	return strings.TrimSpace(caller.Name + " " + caller.Rights.String())
}

func entry(caller, token string, life time.Duration, rights string) string {
	text := fmt.Sprintf("- {caller: %s, sha256: %s, not_after: %s", caller, sumOf(token), time.Now().Add(life).UTC().Format(time.RFC3339))
	if rights != "" {
		text += ", rights: " + rights
	}
	return text + "}\n"
}

// leaf returns a certificate whose names are exactly these.
func leaf(t *testing.T, uris, names []string) *x509.Certificate {
	t.Helper()
	var sans []asn1.RawValue
	for tag, given := range map[int][]string{2: names, 6: uris} {
		for _, name := range given {
			sans = append(sans, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(name)})
		}
	}
	value, err := asn1.Marshal(sans)
	if err != nil {
		t.Fatal(err)
	}
	return accesstest.NewAuthority(t).Issue(t, "client", x509.Certificate{
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}},
	}).Leaf
}

func TestWithoutMethodsEveryoneIsAnonymous(t *testing.T) {
	t.Parallel()
	a, err := access.New(access.Config{Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for _, authorization := range [][]string{nil, {"Bearer anything"}, {"a", "b"}} {
		if caller, err := a.Authenticate(access.Credentials{Authorization: authorization}); err != nil || caller != access.Anonymous {
			t.Errorf("%q: %v, %v", authorization, caller, err)
		}
	}
}

func TestAuthorizations(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	jwt := r.issuer.Token(t, "shop", map[string]any{"roles": []string{"check"}})
	for name, one := range map[string]struct {
		given []string
		want  string
	}{
		"none":                    {nil, "missing"},
		"static token":            {[]string{"Bearer " + staticToken}, "pipeline batch"},
		"JWT":                     {[]string{"Bearer " + jwt}, "shop check"},
		"lower case":              {[]string{"bearer " + jwt}, "shop check"},
		"upper case":              {[]string{"BEARER " + staticToken}, "pipeline batch"},
		"two blanks":              {[]string{"Bearer  " + jwt}, "shop check"},
		"a tab":                   {[]string{"Bearer\t" + jwt}, "malformed"},
		"no blank":                {[]string{"Bearer" + jwt}, "malformed"},
		"no token":                {[]string{"Bearer"}, "malformed"},
		"an empty token":          {[]string{"Bearer "}, "malformed"},
		"an empty value":          {[]string{""}, "malformed"},
		"no scheme":               {[]string{jwt}, "malformed"},
		"another scheme":          {[]string{"Basic " + staticToken}, "malformed"},
		"a longer scheme":         {[]string{"BearerX " + staticToken}, "malformed"},
		"two values":              {[]string{"Bearer " + jwt, "Bearer " + jwt}, "malformed"},
		"an empty second value":   {[]string{"Bearer " + jwt, ""}, "malformed"},
		"two values in one":       {[]string{"Bearer " + jwt + ", Bearer " + jwt}, "malformed"},
		"a blank at the end":      {[]string{"Bearer " + jwt + " "}, "malformed"},
		"a line break":            {[]string{"Bearer " + jwt + "\n"}, "malformed"},
		"a zero byte":             {[]string{"Bearer " + jwt + "\x00"}, "malformed"},
		"padding at the end":      {[]string{"Bearer " + jwt + "="}, "malformed"},
		"an unknown token":        {[]string{"Bearer " + staticToken + "x"}, "unknown"},
		"a static token's case":   {[]string{"Bearer " + strings.ToUpper(staticToken)}, "unknown"},
		"too large":               {[]string{"Bearer " + strings.Repeat("a", 8193)}, "malformed"},
		"far too large":           {[]string{"Bearer " + strings.Repeat("a", 1<<20)}, "malformed"},
		"many blanks":             {[]string{"Bearer" + strings.Repeat(" ", 1<<20) + jwt}, "malformed"},
		"the hash in its place":   {[]string{"Bearer " + sumOf(staticToken)}, "unknown"},
		"dots":                    {[]string{"Bearer " + strings.Repeat(".", 8000)}, "unknown"},
		"two dots":                {[]string{"Bearer .."}, "malformed"},
		"nothing between dots":    {[]string{"Bearer a.." + strings.Repeat("b", 20)}, "malformed"},
		"five parts, as of a JWE": {[]string{"Bearer " + jwt + ".a.b"}, "unknown"},
	} {
		if got := r.try(one.given...); got != one.want {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for name, one := range map[string]struct {
		uris, names []string
		want        string
	}{
		"by URI":                {[]string{"spiffe://shop.example/checkout"}, nil, "checkout check,fresh"},
		"by DNS name":           {nil, []string{"other.example", "LEGACY.shop.example"}, "legacy check"},
		"one caller, two names": {[]string{"spiffe://shop.example/legacy"}, []string{"legacy.shop.example"}, "legacy check"},
		"two callers":           {[]string{"spiffe://shop.example/checkout"}, []string{"legacy.shop.example"}, "certificate"},
		"none":                  {nil, nil, "certificate"},
		"another case":          {[]string{"spiffe://shop.example/Checkout"}, nil, "certificate"},
		"a longer URI":          {[]string{"spiffe://shop.example/checkout/x"}, nil, "certificate"},
		"a shorter URI":         {[]string{"spiffe://shop.example/"}, nil, "certificate"},
		"a query":               {[]string{"spiffe://shop.example/checkout?x"}, nil, "certificate"},
		"an empty query":        {[]string{"spiffe://shop.example/checkout?"}, nil, "certificate"},
		"an empty fragment":     {[]string{"spiffe://shop.example/checkout#"}, nil, "certificate"},
		"a scheme's other case": {[]string{"SPIFFE://shop.example/checkout"}, nil, "certificate"},
		"a subdomain":           {nil, []string{"a.legacy.shop.example"}, "certificate"},
		"a wildcard":            {nil, []string{"*.shop.example"}, "certificate"},
		"the URI as DNS name":   {nil, []string{"spiffe://shop.example/checkout"}, "certificate"},
	} {
		cert := r.Certificate(leaf(t, one.uris, one.names))
		if got := outcome(r.Authenticate(access.Credentials{Certificate: cert})); got != one.want {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
}

func TestACertificateAndATokenMustBothBeValid(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	named, unnamed := r.Certificate(leaf(t, []string{"spiffe://shop.example/checkout"}, nil)), r.Certificate(leaf(t, nil, nil))
	try := func(cert *access.Certificate, token string) string {
		return outcome(r.Authenticate(access.Credentials{Authorization: []string{token}, Certificate: cert}))
	}
	for _, one := range []struct {
		cert        *access.Certificate
		token, want string
	}{
		{named, "Bearer " + staticToken, "pipeline batch"},
		{unnamed, "Bearer " + staticToken, "pipeline batch"},
		{named, "Bearer x", "unknown"},
		{named, "Basic x", "malformed"},
		{named, "", "malformed"},
	} {
		if got := try(one.cert, one.token); got != one.want {
			t.Errorf("%q: got %q, want %q", one.token, got, one.want)
		}
	}
	// A connection may outlive its certificate.
	r.clock.pass(59 * time.Minute)
	if got := try(named, "Bearer "+staticToken); got != "pipeline batch" {
		t.Errorf("before the expiry: %q", got)
	}
	r.clock.pass(2 * time.Minute)
	if got := try(named, "Bearer "+r.issuer.Token(t, "shop", map[string]any{"exp": time.Now().Add(5 * time.Hour).Unix()})); got != "certificate" {
		t.Errorf("an expired certificate beside a valid token: %q", got)
	}
	if got := outcome(r.Authenticate(access.Credentials{Certificate: named})); got != "certificate" {
		t.Errorf("an expired certificate: %q", got)
	}
	r.clock.pass(-10 * time.Hour)
	if got := outcome(r.Authenticate(access.Credentials{Certificate: named})); got != "certificate" {
		t.Errorf("a certificate that is not yet valid: %q", got)
	}
}

func TestPartnersApplyByName(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, one := range []struct {
		given access.Credentials
		want  []string
	}{
		{access.Credentials{Certificate: r.Certificate(leaf(t, []string{"spiffe://shop.example/checkout"}, nil))}, []string{"eu"}},
		{access.Credentials{Authorization: []string{"Bearer " + staticToken}}, []string{"us"}},
		{access.Credentials{Authorization: []string{"Bearer " + r.issuer.Token(t, "checkout", nil)}}, []string{"eu"}},
		{access.Credentials{Authorization: []string{"Bearer " + r.issuer.Token(t, "Checkout", nil)}}, nil},
		{access.Credentials{Authorization: []string{"Bearer " + r.issuer.Token(t, "nobody", nil)}}, nil},
	} {
		caller, err := r.Authenticate(one.given)
		if err != nil || !slices.Equal(caller.Partners, one.want) || (caller.Partners == nil) != (one.want == nil) {
			t.Errorf("%v, %v; want partners %v", caller, err, one.want)
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	issuer := access.Issuer{
		Issuer: "https://issuer.example", Audiences: []string{"a"}, Algorithms: []string{"RS256"}, CallerClaim: "azp", RightsClaim: "roles",
	}
	with := func(change func(*access.Issuer)) access.Config {
		changed := issuer
		change(&changed)
		return access.Config{JWT: []access.Issuer{changed}}
	}
	grants := map[string]access.Grant{"checkout": {Rights: []string{"check"}}, "powerless": {}}
	for name, one := range map[string]struct {
		cfg  access.Config
		want string
	}{
		"certificate of nobody":      {access.Config{Certificates: []access.CertificateCaller{{Caller: "x", URI: "a:b"}}, Callers: grants}, "certificate 1: its caller has no rights"},
		"certificate without rights": {access.Config{Certificates: []access.CertificateCaller{{Caller: "powerless", URI: "a:b"}}, Callers: grants}, "no rights"},
		"certificate without a name": {access.Config{Certificates: []access.CertificateCaller{{Caller: "checkout"}}, Callers: grants}, "either a URI or a DNS name"},
		"certificate with both":      {access.Config{Certificates: []access.CertificateCaller{{Caller: "checkout", URI: "a:b", DNS: "c"}}, Callers: grants}, "either a URI or a DNS name"},
		"certificate twice":          {access.Config{Certificates: []access.CertificateCaller{{Caller: "checkout", DNS: "c"}, {Caller: "checkout", DNS: "C"}}, Callers: grants}, "certificate 2: its name is given twice"},
		"unknown right":              {access.Config{Callers: map[string]access.Grant{"a": {Rights: []string{"Check"}}}}, `caller "a": an unknown right`},
		"the name of anonymous":      {access.Config{Callers: map[string]access.Grant{"anonymous": {}}}, "not authenticated"},
		"a name that is none":        {access.Config{Callers: map[string]access.Grant{"a b": {}}}, "visible ASCII"},
		"no issuer":                  {with(func(i *access.Issuer) { i.Issuer = "" }), "issuer 1: "},
		"issuer over http":           {with(func(i *access.Issuer) { i.Issuer = "http://issuer.example" }), "must begin with https://"},
		"keys over http":             {with(func(i *access.Issuer) { i.KeysURL = "http://issuer.example/keys" }), "must begin with https://"},
		"no audience":                {with(func(i *access.Issuer) { i.Audiences = nil }), "needs an audience"},
		"an empty audience":          {with(func(i *access.Issuer) { i.Audiences = []string{"a", ""} }), "needs an audience"},
		"no algorithm":               {with(func(i *access.Issuer) { i.Algorithms = nil }), "needs an algorithm"},
		"HS256":                      {with(func(i *access.Issuer) { i.Algorithms = []string{"RS256", "HS256"} }), "not supported"},
		"none":                       {with(func(i *access.Issuer) { i.Algorithms = []string{"none"} }), "not supported"},
		"ES512":                      {with(func(i *access.Issuer) { i.Algorithms = []string{"ES512"} }), "not supported"},
		"no caller claim":            {with(func(i *access.Issuer) { i.CallerClaim = "" }), "names of the caller's"},
		"no rights claim":            {with(func(i *access.Issuer) { i.RightsClaim = "" }), "names of the caller's"},
		"unknown right of a value":   {with(func(i *access.Issuer) { i.Rights = map[string][]string{"A": {"all"}} }), `rights of "A"`},
		"one issuer twice":           {access.Config{JWT: []access.Issuer{issuer, issuer}}, "issuer 2: is given twice"},
		"no token file":              {access.Config{TokensFile: "/nonexistent/tokens.yaml"}, "static tokens: "},
	} {
		one.cfg.Logger = zap.NewNop()
		if _, err := access.New(one.cfg); err == nil || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: got %v, want %q", name, err, one.want)
		}
	}
}

func TestFailuresAreCountedByCause(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.try("Bearer x")
	r.try("Bearer x")
	r.try()
	r.try("Bearer " + staticToken)
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "eligibility_authentication_failures_total" {
			for _, series := range family.GetMetric() {
				counts[series.GetLabel()[0].GetValue()] = series.GetCounter().GetValue()
			}
		}
	}
	if counts["unknown"] != 2 || counts["missing"] != 1 || len(counts) != 14 {
		t.Errorf("counted: %v", counts)
	}
}
