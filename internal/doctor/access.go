package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
)

// The checks of auth.
const (
	checkCallers = "callers"
	checkTokens  = "static tokens"
	checkIssuer  = "issuer"
)

// checkAccess checks how callers prove who they are.
func (p patient) checkAccess(ctx context.Context) []Finding {
	auth := p.cfg.Auth
	if !auth.Enabled() {
		return []Finding{ok(checkCallers, "without auth, every caller is anonymous and may do everything")}
	}
	cfg := app.AccessConfig(auth, zap.NewNop(), nil)
	issuers := make([]Finding, len(cfg.JWT))
	var fetching errgroup.Group
	for i, issuer := range cfg.JWT {
		fetching.Go(func() error {
			issuers[i] = checkKeys(ctx, issuer)
			return nil
		})
	}
	_ = fetching.Wait() // if a check fails, that is a finding
	findings := slices.Clip(issuers)
	named := map[string]bool{}
	for _, caller := range auth.Certificates {
		named[caller.Caller] = true
	}
	if auth.TokensFile != "" {
		tokens, found := readTokens(auth.TokensFile, cfg.Callers, time.Now())
		findings = append(findings, found...)
		for _, token := range tokens {
			named[token.Caller] = true
		}
	}
	return append(findings, checkNames(auth, named))
}

// checkNames compares auth.callers with the callers that certificates and tokens name.
func checkNames(auth config.Auth, named map[string]bool) Finding {
	var unused []string
	for name := range auth.Callers {
		if !named[name] && len(auth.JWT) == 0 { // a JWT may name anybody
			unused = append(unused, name)
		}
	}
	slices.Sort(unused)
	if len(unused) > 0 {
		return warning(checkCallers, "remove them from auth.callers, or give them a token or a certificate", "neither a token nor a certificate names: %s", strings.Join(unused, ", "))
	}
	return ok(checkCallers, "%d with a certificate or a token, %d issuers of JWTs", len(named), len(auth.JWT))
}

// readTokens checks the file of static tokens.
func readTokens(path string, grants map[string]access.Grant, now time.Time) ([]access.Token, []Finding) {
	const remedy = "correct auth.tokens_file; `eligibilityd token --caller NAME --rights check` makes a token and its entry"
	text, err := readFile(path)
	if err != nil {
		return nil, []Finding{failure(checkTokens, remedy, "%s %v", named(path), err)}
	}
	tokens, err := access.Tokens(text, grants)
	if err != nil {
		return nil, []Finding{failure(checkTokens, remedy, "%s: %v", path, err)}
	}
	var findings []Finding
	last := map[string]time.Time{} // caller → when its last token ends
	for _, token := range tokens {
		if token.NotAfter.After(last[token.Caller]) {
			last[token.Caller] = token.NotAfter
		}
	}
	for i, token := range tokens {
		left, others := token.NotAfter.Sub(now), "it is the last of the caller"
		if last[token.Caller].After(token.NotAfter) {
			others = "the caller has a later one"
		}
		renew := fmt.Sprintf("`eligibilityd token --caller %s --rights %s`, append its entry, and remove this one when the caller has the new token", token.Caller, token.Rights)
		switch entry := fmt.Sprintf("entry %d (%s)", i+1, token.Caller); {
		case left <= 0:
			findings = append(findings, warning(checkTokens, renew, "%s expired at %s; %s", entry, token.NotAfter.UTC().Format(time.DateTime), others))
		case left < certificateWarning:
			findings = append(findings, warning(checkTokens, renew, "%s expires in %d days; %s", entry, int(left/(24*time.Hour)), others))
		}
	}
	if findings == nil {
		findings = []Finding{ok(checkTokens, "%d tokens of %d callers", len(tokens), len(last))}
	}
	return tokens, findings
}

// checkKeys fetches the keys of an issuer as serve does.
func checkKeys(ctx context.Context, issuer access.Issuer) Finding {
	count, err := access.CountKeys(ctx, issuer)
	if err != nil {
		return failure(checkIssuer, "check auth.jwt.issuer, to the letter, keys_url and algorithms, and the way to its host; until its keys are fetched its callers have no access",
			"%s: %v", issuer.Issuer, err)
	}
	return ok(checkIssuer, "%s: %d keys for %s", issuer.Issuer, count, strings.Join(issuer.Algorithms, ", "))
}
