package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

const (
	checkSecretVault      = "client secret vault"
	checkCertificateVault = "client certificate vault"
	checkAssertion        = "client assertion"
)

const (
	// SecretRemedy is the remedy if a vault hands out no usable client secret or
	// certificate.
	SecretRemedy = "put the client secret, or the certificate with its key, into the vault, grant the identity of the service to get secrets (role Key Vault Secrets User), and check the vault's firewall and that the secret is enabled"
	// sourceRemedy is the remedy if a vault or the identity endpoint is away.
	sourceRemedy = "check partner_center.client_secret_vault or client_certificate_vault and the way to it, or the identity endpoint of this machine; it is asked again"
	// identityRemedy is the remedy if the platform gives this process no identity.
	identityRemedy = "workload_identity: see that the pod has the token of its service account and AZURE_FEDERATED_TOKEN_FILE; " +
		"managed_identity: assign a user-assigned identity to this machine, and set AZURE_CLIENT_ID to its client id"
)

// credentialSeen is what was found of the credential of the application.
type credentialSeen struct {
	findings []Finding
	// federated is how the app registration gets the federated credential that it
	// needs; "" if it needs none, or the identity is unknown.
	federated string
}

// checkCredential checks a credential that is not in the configuration. If client
// is nil, broken is the reason.
func (p patient) checkCredential(ctx context.Context, client *pcclient.Client, broken error) credentialSeen {
	pc := p.partner.PartnerCenter
	check := checkAssertion
	switch {
	case !pc.ClientSecretVault.IsZero():
		check = checkSecretVault
	case !pc.ClientCertificateVault.IsZero():
		check = checkCertificateVault
	case pc.ClientAssertion == config.NoAssertion:
		return credentialSeen{}
	}
	if client == nil {
		line, _, _ := strings.Cut(broken.Error(), "\n")
		return credentialSeen{findings: []Finding{failure(check, "correct the configuration, or the AZURE_… variables of this process", "%s", line)}}
	}
	if check == checkAssertion {
		return p.checkAssertion(ctx, client)
	}
	if err := client.CheckCredential(ctx); err != nil {
		var fail *pcclient.APIError
		remedy := SecretRemedy
		switch {
		case errors.Is(err, identity.ErrRefused):
			remedy = identityRemedy
		case errors.As(err, &fail) && fail.Class == pcclient.ClassUnavailable:
			remedy = sourceRemedy
		}
		return credentialSeen{findings: []Finding{failure(check, remedy, "%v", errors.Unwrap(err))}}
	}
	return credentialSeen{findings: []Finding{ok(check, "it can be read")}}
}

// checkAssertion reports which identity the login host sees.
func (p patient) checkAssertion(ctx context.Context, client *pcclient.Client) credentialSeen {
	kind := p.partner.ClientAssertion
	claims, err := client.Identity(ctx)
	switch {
	case errors.Is(err, identity.ErrRefused):
		return credentialSeen{findings: []Finding{failure(checkAssertion, identityRemedy, "%s: %v", kind, err)}}
	case err != nil:
		return credentialSeen{findings: []Finding{failure(checkAssertion, sourceRemedy, "%s: %v", kind, err)}}
	}
	expected := p.partner.Cloud.TokenExchange()
	matches := slices.Contains(claims.Audience, expected)
	issuer, subject, audience := claimText(claims.Issuer), claimText(claims.Subject), expected
	if !matches {
		audience = claimList(claims.Audience)
	}
	detail := fmt.Sprintf("%s: the login host sees issuer %s, subject %s, audience %s", kind, issuer, subject, audience)
	if !matches {
		return credentialSeen{findings: []Finding{warning(checkAssertion, "let the token have the audience "+expected+", which the federated credential names", "%s", detail)}}
	}
	return credentialSeen{findings: []Finding{ok(checkAssertion, "%s", detail)}, federated: p.federatedCredential(issuer, subject, expected)}
}

// federatedCredential describes how to add a federated credential.
func (p patient) federatedCredential(issuer, subject, audience string) string {
	parameters, err := json.Marshal(struct {
		Name      string   `json:"name"`
		Issuer    string   `json:"issuer"`
		Subject   string   `json:"subject"`
		Audiences []string `json:"audiences"`
	}{"eligibilityd", issuer, subject, []string{audience}})
	if err != nil { // texts can always be encoded
		return ""
	}
	return "add this federated credential to the app registration, and wait some minutes: " +
		"az ad app federated-credential create --id " + p.partner.ClientID + " --parameters '" + string(parameters) + "'"
}

// claim matches the claims that may be shown: they are not secret, but whoever
// writes the file of a token decides their text.
var claim = regexp.MustCompile(`^[A-Za-z0-9:/._~@+-]{1,256}$`)

func claimText(text string) string {
	if !claim.MatchString(text) {
		return "(unreadable)"
	}
	return text
}

// claimList is claimText for a list.
func claimList(texts []string) string {
	shown := make([]string, len(texts))
	for i, text := range texts {
		shown[i] = claimText(text)
	}
	if list := strings.Join(shown, ", "); list != "" && len(list) <= 256 {
		return list
	}
	return claimText("")
}
