package access_test

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

// in is a time in the tests' present, as claims hold it.
func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

func TestClaims(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(cfg *access.Config) {
		cfg.JWT[0].Require = map[string]string{"tid": "Tenant-1", "idtyp": "app"}
	})
	required := map[string]any{"tid": "Tenant-1", "idtyp": "app", "roles": []string{"check"}}
	for name, one := range map[string]struct {
		change map[string]any // nil removes
		want   string
	}{
		"valid": {nil, "shop check"},

		"no exp":                     {map[string]any{"exp": nil}, "claims"},
		"exp null":                   {map[string]any{"exp": json.RawMessage("null")}, "claims"},
		"exp a string":               {map[string]any{"exp": "9999999999"}, "claims"},
		"exp a list":                 {map[string]any{"exp": []int64{in(time.Hour)}}, "claims"},
		"exp negative":               {map[string]any{"exp": -1}, "claims"},
		"exp beyond all times":       {map[string]any{"exp": json.RawMessage("1e300")}, "claims"},
		"exp beyond all numbers":     {map[string]any{"exp": json.RawMessage("1e999")}, "claims"},
		"exp zero":                   {map[string]any{"exp": 0}, "expired"},
		"exp past":                   {map[string]any{"exp": in(-90 * time.Second)}, "expired"},
		"exp past, within leeway":    {map[string]any{"exp": in(-40 * time.Second)}, "shop check"},
		"exp with a fraction":        {map[string]any{"exp": float64(in(time.Hour)) + .5}, "shop check"},
		"nbf to come":                {map[string]any{"nbf": in(90 * time.Second)}, "not_yet_valid"},
		"nbf to come, within leeway": {map[string]any{"nbf": in(40 * time.Second)}, "shop check"},
		"no nbf":                     {map[string]any{"nbf": nil}, "shop check"},
		"nbf a string":               {map[string]any{"nbf": "x"}, "claims"},
		"iat to come":                {map[string]any{"iat": in(90 * time.Second)}, "not_yet_valid"},
		"iat to come, within leeway": {map[string]any{"iat": in(40 * time.Second)}, "shop check"},
		"no iat":                     {map[string]any{"iat": nil}, "shop check"},

		"no aud":               {map[string]any{"aud": nil}, "audience"}, // CVE-2026-55689
		"aud null":             {map[string]any{"aud": json.RawMessage("null")}, "claims"},
		"aud empty":            {map[string]any{"aud": ""}, "audience"},
		"aud an empty list":    {map[string]any{"aud": []string{}}, "audience"},
		"aud a list of ''":     {map[string]any{"aud": []string{""}}, "audience"},
		"aud of another":       {map[string]any{"aud": "api://other"}, "audience"},
		"aud in another case":  {map[string]any{"aud": "API://eligibilityd"}, "audience"},
		"aud with a slash":     {map[string]any{"aud": accesstest.Audience + "/"}, "audience"},
		"aud among others":     {map[string]any{"aud": []string{"a", accesstest.Audience}}, "shop check"},
		"the second audience":  {map[string]any{"aud": "second"}, "shop check"},
		"aud list of numbers":  {map[string]any{"aud": []any{accesstest.Audience, 1}}, "claims"},
		"aud list with null":   {map[string]any{"aud": []any{accesstest.Audience, nil}}, "claims"},
		"aud an object":        {map[string]any{"aud": map[string]any{accesstest.Audience: true}}, "claims"},
		"aud by another name":  {map[string]any{"aud": nil, "AUD": accesstest.Audience}, "audience"},
		"aud, prefix of words": {map[string]any{"aud": accesstest.Audience + " x"}, "audience"},

		"no iss":              {map[string]any{"iss": nil}, "issuer"},
		"iss of another":      {map[string]any{"iss": "https://evil.example"}, "issuer"},
		"iss with a slash":    {map[string]any{"iss": r.issuer.URL + "/"}, "issuer"},
		"iss in another case": {map[string]any{"iss": strings.ToUpper(r.issuer.URL)}, "issuer"},
		"iss a list":          {map[string]any{"iss": []string{r.issuer.URL}}, "issuer"},

		"another tenant":           {map[string]any{"tid": "Tenant-2"}, "claims"},
		"the tenant's case":        {map[string]any{"tid": "tenant-1"}, "claims"}, // CVE-2026-55170
		"no tenant":                {map[string]any{"tid": nil}, "claims"},
		"a list of tenants":        {map[string]any{"tid": []string{"Tenant-1"}}, "claims"},
		"a user's token":           {map[string]any{"idtyp": "user"}, "claims"},
		"the tenant's name's case": {map[string]any{"tid": nil, "TID": "Tenant-1"}, "claims"},
		"no caller":                {map[string]any{"azp": nil}, "claims"},
		"caller a number":          {map[string]any{"azp": 7}, "claims"},
		"caller empty":             {map[string]any{"azp": ""}, "claims"},
		"caller null":              {map[string]any{"azp": json.RawMessage("null")}, "claims"},
		"caller too long":          {map[string]any{"azp": strings.Repeat("a", 65)}, "claims"},
		"caller with a line break": {map[string]any{"azp": "shop\n"}, "claims"},
		"caller of other letters":  {map[string]any{"azp": "shоp"}, "claims"}, // a Cyrillic о
		"caller anonymous":         {map[string]any{"azp": "anonymous"}, "claims"},
		"caller by another claim":  {map[string]any{"azp": nil, "appid": "shop"}, "claims"},
		"caller's case is kept":    {map[string]any{"azp": "Shop"}, "Shop check"},
		"no rights":                {map[string]any{"roles": nil}, "shop"}, // an audience alone gives nothing
		"an empty list of rights":  {map[string]any{"roles": []string{}}, "shop"},
		"unknown rights":           {map[string]any{"roles": []string{"Admin", "CHECK", "check,batch", " check"}}, "shop"},
		"rights as words":          {map[string]any{"roles": "check  batch other"}, "shop check,batch"},
		"rights of another claim":  {map[string]any{"roles": nil, "scp": "check"}, "shop"},
		"rights a number":          {map[string]any{"roles": 7}, "claims"},
		"rights a list of lists":   {map[string]any{"roles": []any{[]string{"check"}}}, "claims"},
		"rights null":              {map[string]any{"roles": json.RawMessage("null")}, "claims"},
		"rights an object":         {map[string]any{"roles": map[string]any{"check": true}}, "claims"},
		"rights with null":         {map[string]any{"roles": []any{"check", nil}}, "claims"},
		"a claim nobody asked for": {map[string]any{"x": map[string]any{"y": []int{1}}}, "shop check"},
		"a deeply nested claim":    {map[string]any{"x": json.RawMessage(strings.Repeat("[", 2000) + strings.Repeat("]", 2000))}, "shop check"},
	} {
		claims := maps.Clone(required)
		maps.Copy(claims, one.change)
		if got := r.try("Bearer " + r.issuer.Token(t, "shop", claims)); got != one.want {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	other := accesstest.NewKey(t, "first", "RS256") // by the name of the issuer's key
	for name, one := range map[string]struct {
		header map[string]any
		want   string
	}{
		"valid":                  {nil, "shop check"},
		"no typ":                 {map[string]any{"typ": nil}, "shop check"},
		"at+jwt":                 {map[string]any{"typ": "at+jwt"}, "shop check"},
		"typ with its media":     {map[string]any{"typ": "application/AT+JWT"}, "shop check"},
		"logout token":           {map[string]any{"typ": "logout+jwt"}, "header"},
		"typ a number":           {map[string]any{"typ": 1}, "header"},
		"typ empty":              {map[string]any{"typ": ""}, "header"},
		"crit":                   {map[string]any{"crit": []string{"exp"}, "exp": 1}, "header"},
		"crit empty":             {map[string]any{"crit": []string{}}, "header"},
		"crit null":              {map[string]any{"crit": json.RawMessage("null")}, "header"},
		"b64":                    {map[string]any{"b64": false}, "header"},
		"b64 true":               {map[string]any{"b64": true}, "header"},
		"zip":                    {map[string]any{"zip": "DEF"}, "header"}, // CVE-2024-28180
		"enc":                    {map[string]any{"enc": "A256GCM"}, "header"},
		"cty, as of a nested":    {map[string]any{"cty": "JWT"}, "header"},
		"no alg":                 {map[string]any{"alg": nil}, "header"},
		"alg a list":             {map[string]any{"alg": []string{"RS256"}}, "header"},
		"alg none":               {map[string]any{"alg": "none"}, "algorithm"},
		"alg None":               {map[string]any{"alg": "None"}, "algorithm"},
		"alg empty":              {map[string]any{"alg": ""}, "algorithm"},
		"alg in lower case":      {map[string]any{"alg": "rs256"}, "algorithm"},
		"alg of no configured":   {map[string]any{"alg": "RS512"}, "algorithm"},
		"alg HS256":              {map[string]any{"alg": "HS256"}, "algorithm"}, // CVE-2026-55165
		"alg of another kind":    {map[string]any{"alg": "ES256"}, "key"},
		"unknown kid":            {map[string]any{"kid": "unknown"}, "key"},
		"kid in another case":    {map[string]any{"kid": "First"}, "key"},
		"kid empty":              {map[string]any{"kid": ""}, "header"},
		"kid a number":           {map[string]any{"kid": 1}, "header"},
		"kid null":               {map[string]any{"kid": json.RawMessage("null")}, "header"},
		"kid a path":             {map[string]any{"kid": "../../dev/null"}, "key"},
		"no kid":                 {map[string]any{"kid": nil}, "shop check"},
		"a key of its own":       {map[string]any{"jwk": other.JWK(), "jku": "https://evil.example/keys", "x5u": "https://evil.example"}, "shop check"},
		"alg twice in two cases": {map[string]any{"ALG": "none"}, "shop check"},
		"a large header":         {map[string]any{"x": strings.Repeat("a", 2000)}, "malformed"},
		"a deep header":          {map[string]any{"x": json.RawMessage(strings.Repeat("[", 700) + strings.Repeat("]", 700))}, "shop check"},
	} {
		token := r.issuer.Key().Sign(t, one.header, r.issuer.Claims("shop", map[string]any{"roles": []string{"check"}}))
		if got := r.try("Bearer " + token); got != one.want {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	own, other := r.issuer.Key(), accesstest.NewKey(t, "first", "RS256")
	claims := r.issuer.Claims("shop", nil)
	valid := r.issuer.Token(t, "shop", nil)
	parts := strings.Split(valid, ".")
	unsigned := accesstest.Unsigned(t, map[string]any{"alg": "none", "typ": "JWT"}, claims)
	public, err := x509.MarshalPKIXPublicKey(own.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	// HS256 with what everybody knows as its secret: the public key as PEM, DER or n.
	hmacs := map[string]string{}
	text := accesstest.Unsigned(t, map[string]any{"alg": "HS256", "typ": "JWT", "kid": "first"}, claims)
	for name, secret := range map[string][]byte{
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), "DER": public,
		"n": own.Private.Public().(*rsa.PublicKey).N.Bytes(), "empty": nil,
	} {
		mac := hmac.New(sha256.New, secret)
		_, _ = mac.Write([]byte(text))
		hmacs[name] = text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	for name, one := range map[string]struct{ token, want string }{
		"unsigned":                    {unsigned + ".", "malformed"},
		"unsigned with a signature":   {unsigned + "." + parts[2], "algorithm"},
		"the signature left out":      {parts[0] + "." + parts[1] + ".", "malformed"},
		"the signature cut":           {valid[:len(valid)-2], "signature"},
		"the signature longer":        {valid + "AAAA", "signature"},
		"the signature of another":    {parts[0] + "." + parts[1] + "." + strings.Split(r.issuer.Token(t, "shop2", nil), ".")[2], "signature"},
		"other claims":                {accesstest.Unsigned(t, map[string]any{"alg": "RS256", "kid": "first"}, r.issuer.Claims("admin", nil)) + "." + parts[2], "signature"},
		"by another's key":            {other.Sign(t, nil, claims), "signature"},
		"by another's key, no kid":    {other.Sign(t, map[string]any{"kid": nil}, claims), "signature"},
		"by another's key in a jwk":   {other.Sign(t, map[string]any{"jwk": other.JWK()}, claims), "signature"},
		"HS256 with PEM":              {hmacs["PEM"], "algorithm"},
		"HS256 with DER":              {hmacs["DER"], "algorithm"},
		"HS256 with n":                {hmacs["n"], "algorithm"},
		"HS256 with nothing":          {hmacs["empty"], "algorithm"},
		"HS256 by the name RS256":     {strings.Replace(text, strings.Split(text, ".")[0], parts[0], 1) + "." + strings.Split(hmacs["PEM"], ".")[2], "signature"},
		"claims that are no object":   {own.Sign(t, nil, `[]`), "malformed"},
		"claims that are null":        {own.Sign(t, nil, `null`), "malformed"},
		"claims that are no JSON":     {own.Sign(t, nil, `{"iss":`), "malformed"},
		"claims and more":             {own.Sign(t, nil, `{} {}`), "malformed"},
		"no base64":                   {own.SignText(t, "a/b+."+parts[1]), "malformed"},
		"padded base64":               {own.SignText(t, parts[0]+"=."+parts[1]), "malformed"},
		"base64 with bits left over":  {strings.TrimSuffix(valid, valid[len(valid)-1:]) + next(valid[len(valid)-1]), "malformed"},
		"a header that is no object":  {own.SignText(t, accesstest.Unsigned(t, `"x"`, claims)), "malformed"},
		"a token in a token":          {own.Sign(t, nil, `"`+valid+`"`), "malformed"},
		"iss twice, ours last":        {own.Sign(t, nil, `{"iss":"https://evil.example","iss":"`+r.issuer.URL+`"}`), "malformed"},
		"iss in two cases, ours last": {own.Sign(t, nil, `{"iss":"https://evil.example","ISS":"`+r.issuer.URL+`"}`), "issuer"},
	} {
		if got := r.try("Bearer " + one.token); got != one.want {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
	if n := r.Verified(); n != 0 {
		t.Errorf("%d refused tokens are remembered", n)
	}
	if got := r.try("Bearer " + valid); got != "shop "+access.AllRights.String() {
		t.Errorf("the valid token: %q", got)
	}
}

// Tokens that no issuer can have signed are cheap: their claims are read only as often
// as an operator needs to see what is wrong with them.
func TestMostTokensOfUnknownKeysAreNotExamined(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	claims := r.issuer.Claims("shop", nil)
	claims["iss"] = "https://evil.example"
	causes := map[string]int{}
	for n := range 1000 {
		token := accesstest.Unsigned(t, map[string]any{"alg": "RS256", "kid": fmt.Sprintf("unknown-%d", n)}, claims) + ".AAAA"
		causes[r.try("Bearer "+token)]++
	}
	if causes["issuer"] < 100 || causes["issuer"] > 500 || causes["issuer"]+causes["key"] != 1000 {
		t.Errorf("causes %v, want 100 tokens a second examined", causes)
	}
	if got := r.try("Bearer " + r.issuer.Token(t, "shop", nil)); got != "shop "+access.AllRights.String() {
		t.Errorf("the valid token: %q", got)
	}
}

// next returns a base64 digit whose lowest bit differs.
func next(digit byte) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return digits[strings.IndexByte(digits, digit)^1:][:1]
}

func TestAllAlgorithms(t *testing.T) {
	t.Parallel()
	all := []string{"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"}
	r := newRig(t, func(cfg *access.Config) { cfg.JWT[0].Algorithms = all })
	keys := make([]*accesstest.Key, 0, len(all))
	for _, algorithm := range all {
		keys = append(keys, accesstest.NewKey(t, algorithm, algorithm))
	}
	es512 := accesstest.NewKey(t, "ES512", "ES512")
	r.issuer.Publish(append(keys, es512)...)
	r.fetch(t)
	for _, signer := range keys {
		for _, named := range keys {
			want := "shop check"
			if signer != named {
				want = "signature"
				if signer.Algorithm != named.Algorithm {
					want = "key" // the key is not for the algorithm
				}
			}
			token := signer.Sign(t, map[string]any{"kid": named.ID}, r.issuer.Claims("shop", map[string]any{"roles": "check"}))
			if got := r.try("Bearer " + token); got != want {
				t.Errorf("%s by the key for %s: got %q, want %q", signer.Algorithm, named.Algorithm, got, want)
			}
		}
	}
	if got := r.try("Bearer " + es512.Sign(t, nil, r.issuer.Claims("shop", nil))); got != "algorithm" {
		t.Errorf("ES512: %q", got)
	}
}

// Keys that are not for signatures, or too weak, are not used.
func TestKeysThatAreNotUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	good, bad := accesstest.NewKey(t, "good", "RS256"), accesstest.NewKey(t, "bad", "RS256")
	ec := accesstest.NewKey(t, "bad", "ES256")
	for name, one := range map[string]struct {
		signer *accesstest.Key
		change map[string]any
		want   string
	}{
		"nothing changed":     {bad, nil, "shop check"},
		"without alg and use": {bad, map[string]any{"alg": nil, "use": nil}, "shop check"},
		"key_ops verify":      {bad, map[string]any{"key_ops": []string{"verify"}}, "shop check"},
		"broken certificates": {bad, map[string]any{"x5c": []string{"AAAA"}, "x5t": "AAAA"}, "shop check"},
		"use enc":             {bad, map[string]any{"use": "enc"}, "key"},
		"key_ops sign":        {bad, map[string]any{"key_ops": []string{"sign"}}, "key"},
		"alg of another":      {bad, map[string]any{"alg": "RS512"}, "key"},
		"kty of another":      {bad, map[string]any{"kty": "EC"}, "key"},
		"kty oct":             {bad, map[string]any{"kty": "oct", "k": "AAAA"}, "key"},
		"kty unknown":         {bad, map[string]any{"kty": "AKP"}, "key"},
		"1,024 bits":          {bad, map[string]any{"n": strings.Repeat("_", 171)}, "key"},
		"16,384 bits":         {bad, map[string]any{"n": strings.Repeat("_", 2731)}, "key"},
		"e is 1":              {bad, map[string]any{"e": "AQ"}, "key"},
		"e is even":           {bad, map[string]any{"e": "BA"}, "key"},
		"no n":                {bad, map[string]any{"n": nil}, "key"},
		"n a number":          {bad, map[string]any{"n": 7}, "key"},
		"EC":                  {ec, nil, "shop check"},
		"EC of another curve": {ec, map[string]any{"crv": "P-384"}, "key"},
		"EC off the curve":    {ec, map[string]any{"x": strings.Repeat("A", 43)}, "key"},
		"EC without y":        {ec, map[string]any{"y": nil}, "key"},
	} {
		jwk := one.signer.JWK()
		for member, value := range one.change {
			if jwk[member] = value; value == nil {
				delete(jwk, member)
			}
		}
		r.issuer.Answer(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{"no key", nil, jwk, good.JWK()}})
		})
		r.fetch(t)
		token := one.signer.Sign(t, nil, r.issuer.Claims("shop", map[string]any{"roles": "check"}))
		if got := r.try("Bearer " + token); got != one.want {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
}

func TestIssuersAreIndependent(t *testing.T) {
	t.Parallel()
	second := accesstest.NewIssuer(t)
	r := newRig(t, func(cfg *access.Config) {
		other := configOf(second)
		other.Audiences, other.CallerClaim, other.Algorithms = []string{"theirs"}, "appid", []string{"ES256"}
		cfg.JWT = append(cfg.JWT, other)
	})
	second.Publish(accesstest.NewKey(t, "first", "ES256"))
	theirs := map[string]any{"aud": "theirs", "appid": "other", "roles": "check"}
	if got := r.try("Bearer " + second.Token(t, "x", theirs)); got != "keys_missing" {
		t.Errorf("before its keys are known: %q", got)
	}
	if err := r.FetchKeys(t.Context(), second.URL); err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]struct{ token, want string }{
		"ours":                        {r.issuer.Token(t, "shop", map[string]any{"roles": "check"}), "shop check"},
		"theirs":                      {second.Token(t, "x", theirs), "other check"},
		"theirs by our algorithm":     {r.issuer.Key().Sign(t, nil, second.Claims("x", theirs)), "algorithm"},
		"theirs for our audience":     {second.Token(t, "x", map[string]any{"appid": "other"}), "audience"},
		"ours by their key":           {second.Key().Sign(t, nil, r.issuer.Claims("shop", nil)), "key"},
		"theirs with the same key id": {accesstest.NewKey(t, "first", "ES256").Sign(t, nil, second.Claims("x", theirs)), "signature"},
	} {
		if got := r.try("Bearer " + one.token); got != one.want {
			t.Errorf("%s: got %q, want %q", name, got, one.want)
		}
	}
}

func TestRightsAreMapped(t *testing.T) {
	t.Parallel()
	mapped := map[string][]string{"Eligibility.Check": {"check", "batch"}, "support": {}, "check": {"prefetch"}}
	r := newRig(t, func(cfg *access.Config) { cfg.JWT[0].Rights = mapped })
	tb := testing.TB(t)
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.SampledFrom([]string{
			"Eligibility.Check", "eligibility.check", "support", "check", "batch", "fresh", "watch", "watch_all", "prefetch", "none", "",
		}), 0, 6).Draw(t, "values")
		var want access.Rights
		for _, value := range values {
			words, known := mapped[value]
			if !known {
				words = []string{value}
			}
			for _, word := range words {
				right, _ := access.ParseRight(word)
				want |= right
			}
		}
		claims := map[string]any{"roles": values}
		if rapid.Bool().Draw(t, "as words") {
			claims["roles"] = strings.Join(values, " ")
		}
		token := r.issuer.Key().Sign(tb, nil, r.issuer.Claims("shop", claims))
		caller, err := r.Authenticate(access.Credentials{Authorization: []string{"Bearer " + token}})
		if err != nil || caller.Rights != want {
			t.Fatalf("%v gives %v (%v), want %v", values, caller, err, want)
		}
	})
}
