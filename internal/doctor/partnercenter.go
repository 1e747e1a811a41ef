package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

// The checks of the connection to Partner Center.
const (
	checkToken          = "token"
	checkMFA            = "mfa"
	checkAccount        = "account"
	checkQualifications = "qualifications"
)

// checkPartnerCenter gets a token and asks Partner Center as serve would,
// except that the stored refresh token does not change.
func (p patient) checkPartnerCenter(ctx context.Context) []Finding {
	cfg := app.ClientConfig(p.partner.PartnerCenter, zap.NewNop(), nil)
	cfg.ReadOnly = true
	client, err := pcclient.New(cfg)
	findings := checkClientCertificate(p.partner.PartnerCenter, time.Now())
	seen := p.checkCredential(ctx, client, err)
	findings = append(findings, seen.findings...)
	findings = append(findings, p.checkRefreshToken(ctx, client, err)...)
	rest := func(from int, why string) []Finding {
		for _, check := range []string{checkToken, checkMFA, checkAccount, checkQualifications}[from:] {
			findings = append(findings, skipped(check, why))
		}
		return findings
	}
	if err != nil { // a key is missing, which is already a finding
		return rest(0, "the configuration is not complete")
	}
	defer client.Close()
	if err := client.Token(ctx); err != nil {
		findings = append(findings, p.noToken(err, seen.federated))
		return rest(1, "there is no token")
	}
	findings = append(findings, ok(checkToken, "the login host gives one, flow %s", p.partner.Flow))

	asked := make([]Finding, 3)
	var asking errgroup.Group
	for i, ask := range []func(context.Context, *pcclient.Client) Finding{p.mfa, p.account, p.qualifications} {
		asking.Go(func() error {
			asked[i] = ask(ctx, client)
			return nil
		})
	}
	_ = asking.Wait() // if a check fails, that is a finding
	return append(findings, asked...)
}

// noToken is the finding if there is no token. federated describes the federated
// credential that the app registration needs; "" if it needs none.
func (p patient) noToken(err error, federated string) Finding {
	fail, isAPI := errors.AsType[*pcclient.APIError](err)
	if !isAPI {
		return failure(checkToken, "check the partner_center section", "%v", err)
	}
	detail := string(fail.Reason)
	if fail.Code != "" {
		detail = "the login host refuses: " + fail.Code
	}
	if codes := fail.LoginCodes(); len(codes) > 0 {
		detail += fmt.Sprintf(" (AADSTS%d)", codes[0]) // the other findings repeat it
	}
	if fail.Err != nil {
		detail += fmt.Sprintf(": %v", fail.Err)
	}
	remedy := TokenRemedy(fail, p.options.ConfigFile)
	if federated != "" && (fail.RefusesIdentity() || fail.Reason == pcclient.ReasonInvalidClient) {
		remedy = federated
	}
	return failure(checkToken, remedy, "flow %s: %s", p.partner.Flow, detail)
}

// TokenRemedy returns the remedy if a token request failed. configFile may be
// empty.
func TokenRemedy(fail *pcclient.APIError, configFile string) string {
	consent := "consent again with multi-factor authentication: `eligibilityd login --config " + placeholder(configFile) + "`"
	if fail.RefusesIdentity() {
		return "add the identity of this process to the federated credentials of the app registration: `eligibilityd doctor` shows its issuer, subject and audience"
	}
	if errors.Is(fail, identity.ErrRefused) {
		return identityRemedy
	}
	if errors.Is(fail, tokenstore.ErrUnreadable) {
		return "let the user of the service read the refresh token where it is stored"
	}
	reason := fail.Reason
	if reason == pcclient.ReasonInvalidGrant {
		switch fail.GrantCause() {
		case pcclient.GrantConsentMissing:
			reason = pcclient.ReasonConsent
		case pcclient.GrantConditionalAccess:
			reason = pcclient.ReasonInteraction
		case pcclient.GrantUnclear:
			return "try again in a minute, as it sometimes passes by itself; if it lasts, " + consent
		case pcclient.GrantEnded:
		}
	}
	if fail.ByIdentity() && reason == pcclient.ReasonInvalidClient {
		return "compare issuer, subject and audience of the token of this process, which `eligibilityd doctor` shows, with the federated credentials of the app registration, and check the clock"
	}
	switch reason {
	case pcclient.ReasonRefreshToken, pcclient.ReasonInvalidGrant:
		return consent
	case pcclient.ReasonInteraction:
		return "see which Conditional Access policy the sign-in log of the tenant names, then " + consent
	case pcclient.ReasonConsent:
		return "have an administrator consent to the API permissions, then " + consent
	case pcclient.ReasonInvalidClient:
		return "check that partner_center.client_secret is the value, not the id, of a secret of the app registration that has not expired; " +
			"with client_certificate_file, that the app registration knows its first certificate"
	case pcclient.ReasonUnauthorizedClient, pcclient.ReasonInvalidResource:
		return "check partner_center.client_id, audience and the API permissions of the app registration, and consent to them"
	case pcclient.ReasonInvalidRequest:
		return "check partner_center.tenant_id, client_id and authority (national clouds have their own)"
	case pcclient.ReasonRefreshTokenStore:
		return awayRemedy
	case pcclient.ReasonClientCredential:
		return SecretRemedy
	case pcclient.ReasonClientCredentialSource:
		return sourceRemedy
	case pcclient.ReasonRefused:
		return "check the partner_center section; the sign-in log of the tenant has the details"
	case pcclient.ReasonThrottled:
		return fmt.Sprintf("wait %v: the login host asks for a pause", fail.RetryAfter)
	default:
		return "check the way to partner_center.authority and try again; a proxy's page counts as no answer"
	}
}

// nobody is a customer that does not exist, which suffices to ask about MFA.
const nobody = "00000000-0000-0000-0000-000000000000"

func (p patient) mfa(ctx context.Context, client *pcclient.Client) Finding {
	if p.partner.Flow == config.FlowAppOnly {
		return skipped(checkMFA, "tokens of flow app_only need none")
	}
	customer := p.options.Customer
	if customer == "" {
		customer = nobody
	}
	state, err := client.MFA(ctx, customer)
	switch {
	case err != nil:
		return failure(checkMFA, "check the way to partner_center.base_url and try again", "%v", err)
	case state == pcclient.MFAProven:
		return ok(checkMFA, "Partner Center takes the token for one with multi-factor authentication")
	case state == pcclient.MFAMissing:
		return failure(checkMFA, p.mfaRemedy(),
			"the token proves no multi-factor authentication; Partner Center refuses it ("+mfaRefused+"), or will")
	default:
		return warning(checkMFA, "ask for a customer that exists: --customer ID", "unknown: Partner Center does not report whether the token proves multi-factor authentication")
	}
}

func (p patient) account(ctx context.Context, client *pcclient.Client) Finding {
	const check = checkAccount
	if p.partner.Flow == config.FlowAppOnly {
		return warning(check, "set partner_center.flow: app_user and run `eligibilityd login --config "+placeholder(p.options.ConfigFile)+"`",
			"flow app_only cannot ask for accounts: no purchase can be decided, only qualifications read")
	}
	if p.options.Customer == "" {
		return skipped(check, "--customer ID asks")
	}
	status, _, err := client.ValidationStatus(ctx, p.options.Customer)
	switch {
	case err != nil:
		return p.unanswered(check, err)
	case status.None:
		return ok(check, "the customer has no account status (404, code 600074)")
	default:
		return ok(check, "the customer's account status is %q", status.Status)
	}
}

func (p patient) qualifications(ctx context.Context, client *pcclient.Client) Finding {
	const check = checkQualifications
	if p.options.Customer == "" {
		return skipped(check, "--customer ID asks")
	}
	held, _, err := client.Qualifications(ctx, p.options.Customer)
	if err != nil {
		return p.unanswered(check, err)
	}
	words := make([]string, len(held))
	for i, q := range held {
		words[i] = strings.TrimSpace(fmt.Sprintf("%q %.100q", q.Type, q.VettingStatus))
	}
	if len(held) == 0 {
		return ok(check, "the customer holds none")
	}
	return ok(check, "the customer holds %s", strings.Join(words, ", "))
}

// mfaRefused is the code of a token that lacks multi-factor authentication.
const mfaRefused = "900421"

// mfaRemedy describes how a token gets the proof of multi-factor
// authentication.
func (p patient) mfaRemedy() string {
	return "require multi-factor authentication of the service user, then `eligibilityd login --config " + placeholder(p.options.ConfigFile) + "`"
}

// unanswered is the finding if Partner Center did not answer a question.
func (p patient) unanswered(check string, err error) Finding {
	fail, isAPI := errors.AsType[*pcclient.APIError](err)
	if !isAPI {
		return failure(check, "check --customer", "%v", err)
	}
	detail := fail.Error()
	if _, err := uuid.Parse(fail.CorrelationID); err == nil && fail.Status != 0 {
		detail += " (MS-CorrelationId " + fail.CorrelationID + ")"
	}
	if fail.Code == mfaRefused {
		return failure(check, p.mfaRemedy(), "%s", detail)
	}
	switch fail.Class {
	case pcclient.ClassNotFound, pcclient.ClassNotServed:
		if len(p.cfg.Partners) > 1 { // it may be another partner's
			return skipped(check, "--customer is no customer of this partner")
		}
		return failure(check, "name a customer of this partner", "%s", detail)
	case pcclient.ClassThrottled:
		return failure(check, fmt.Sprintf("wait %v: Partner Center asks for a pause", fail.RetryAfter), "%s", detail)
	case pcclient.ClassUnavailable:
		return failure(check, "try again; see the service health of Microsoft if it lasts", "%s", detail)
	case pcclient.ClassCredentials:
		return failure(check, "check the roles of the service user, the partner agreement and multi-factor authentication", "%s", detail)
	default:
		return failure(check, "check that partner_center.base_url is Partner Center itself", "%s", detail)
	}
}
