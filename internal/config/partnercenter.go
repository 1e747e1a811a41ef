package config

import "time"

// onlyPartner is the name of the partner in the section partner_center.
const onlyPartner = "default"

// Partner is one partner: a tenant at Partner Center, with its own tokens,
// budget and evidence.
type Partner struct {
	// Name is the name in requests, logs, metrics and the keys of Redis.
	Name string `yaml:"-"`
	// PartnerCenter is the short form of one partner called "default". Conflicts
	// with partners and partner_defaults.
	PartnerCenter `yaml:"partner_center"`
}

// PartnerCenter configures the account that sends requests to Partner Center.
//
// serve needs tenant_id, client_id, exactly one credential (client_assertion,
// client_secret, client_secret_file, client_secret_vault, client_certificate_file
// or client_certificate_vault) and, for flow app_user, a refresh token in
// refresh_token_file or refresh_token_vault. dev needs none of them: it brings its
// own simulator.
type PartnerCenter struct {
	// Cloud is the cloud of the partner's tenant: global, us_government or
	// china (21Vianet). It decides the defaults of base_url, authority and
	// audience. Optional; global.
	Cloud Cloud `yaml:"cloud"`
	// BaseURL is the address of the Partner Center REST API, without /v1. An
	// absolute https URL without user, query or fragment; http is accepted only
	// if the host is loopback. Optional; by cloud, for global
	// https://api.partnercenter.microsoft.com.
	BaseURL string `yaml:"base_url"`
	// Authority is the login host, without the tenant; the same rules as for
	// base_url. Optional; by cloud, for global
	// https://login.microsoftonline.com.
	Authority string `yaml:"authority"`
	// TenantID is the partner's own Microsoft Entra tenant, not a customer's:
	// a GUID or a domain name of it. serve needs it; no default.
	TenantID string `yaml:"tenant_id"`
	// ClientID is the application (client) id of the app registration, a
	// GUID. serve needs it; no default.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the value, not the id, of a secret of that registration.
	// Conflicts with the other credentials. After Load it holds the secret of
	// client_secret_file, too.
	ClientSecret Secret `yaml:"client_secret"`
	// ClientSecretFile is a file that holds the secret and nothing else, but
	// for blanks around it; read once, at start. Conflicts with the other
	// credentials.
	ClientSecretFile string `yaml:"client_secret_file"`
	// ClientSecretVault is an Azure Key Vault that holds the secret. It is read
	// with the first token request, hourly, when Microsoft refuses the secret,
	// and on SIGHUP; if that fails, the secret that was read before stays in
	// use. Conflicts with the other credentials.
	ClientSecretVault SecretVault `yaml:"client_secret_vault"`
	// ClientCertificateFile is a PEM file with a certificate of that
	// registration, the first one in the file, and its RSA key of at least 2048
	// bits, PKCS #8 or PKCS #1, not encrypted; read once, at start, when it
	// must be valid. Conflicts with the other credentials.
	ClientCertificateFile string `yaml:"client_certificate_file"`
	// ClientCertificateVault is an Azure Key Vault that holds such a certificate
	// and its key: a certificate of the vault, which is a secret of the same
	// name, or a secret with both, in PEM or as the vault exports them in PKCS
	// #12. It is read as client_secret_vault is. Conflicts with the other
	// credentials.
	ClientCertificateVault SecretVault `yaml:"client_certificate_vault"`
	// ClientAssertion is the identity of this process in place of a secret; the
	// app registration must have it as a federated credential. workload_identity
	// is the service account of a Kubernetes cluster, whose token is in the file
	// that AZURE_FEDERATED_TOKEN_FILE names; managed_identity is a user-assigned
	// managed identity of the same tenant, chosen by AZURE_CLIENT_ID if there are
	// several. Not tested against a real tenant. Conflicts with the other
	// credentials. Optional; none.
	ClientAssertion ClientAssertion `yaml:"client_assertion"`
	// ClientCertificate is not a key. After Load it holds the contents of
	// ClientCertificateFile; see KeyPair.
	ClientCertificate Secret `yaml:"-"`
	// Flow selects how tokens are obtained: app_user acts for a user of the
	// partner by a refresh token and can ask both questions; app_only can read
	// qualifications only, so no account can be decided with it. Optional;
	// app_user.
	Flow Flow `yaml:"flow"`
	// RefreshTokenFile is the file of the refresh token, read at start and
	// replaced when Microsoft issues a new one: the process must be able to
	// write to its directory, and the file must outlive restarts. `eligibilityd
	// login` creates it. If flow is app_user, serve needs it or
	// refresh_token_vault; if flow is app_only, it is not used. No default.
	RefreshTokenFile string `yaml:"refresh_token_file"`
	// RefreshTokenVault is an Azure Key Vault in place of the file.
	RefreshTokenVault RefreshTokenVault `yaml:"refresh_token_vault"`
	// Audience is the resource that tokens are for: an absolute URI without
	// "/.default". It depends on the cloud, not on base_url, so it stays the
	// same when base_url points at a simulator or a proxy. The retired
	// https://graph.windows.net is rejected. Optional; by cloud, for global
	// https://api.partnercenter.microsoft.com.
	Audience string `yaml:"audience"`
	// TokenEndpoint is the version of the login host's endpoints: v2 takes the
	// audience as a scope, v1 as a resource. Partner Center accepts the tokens
	// of both. Optional; v2.
	TokenEndpoint TokenEndpoint `yaml:"token_endpoint"`
	// AttemptTimeout is the limit of one HTTP request to either host; more
	// than 0 and at most 10s, which is the fixed limit of a whole fetch,
	// replays included. Optional; 3s.
	AttemptTimeout time.Duration `yaml:"attempt_timeout"`
	// BudgetPerMinute is how many requests a minute may be sent to Partner
	// Center, replays included and token requests not; more than 0. It is the
	// budget of all replicas that share a Redis together; without Redis, of this
	// process alone. Optional; 400.
	BudgetPerMinute int `yaml:"budget_per_minute"`
	// BatchConcurrency is how many customers of one batch may be fetched at the
	// same time; 1 to 1000. Optional; 16.
	BatchConcurrency int `yaml:"batch_concurrency"`
}

// ClientAssertion is a value of partner_center.client_assertion.
type ClientAssertion string

// The values of partner_center.client_assertion.
const (
	NoAssertion      ClientAssertion = ""
	WorkloadIdentity ClientAssertion = "workload_identity"
	ManagedIdentity  ClientAssertion = "managed_identity"
)

func (ClientAssertion) words() []string { return []string{"", "workload_identity", "managed_identity"} }

// Flow is a value of partner_center.flow.
type Flow string

// The values of partner_center.flow.
const (
	FlowAppUser Flow = "app_user"
	FlowAppOnly Flow = "app_only"
)

func (Flow) words() []string { return []string{"app_user", "app_only"} }

// TokenEndpoint is a value of partner_center.token_endpoint.
type TokenEndpoint string

// The values of partner_center.token_endpoint.
const (
	TokenEndpointV2 TokenEndpoint = "v2"
	TokenEndpointV1 TokenEndpoint = "v1"
)

func (TokenEndpoint) words() []string { return []string{"v2", "v1"} }

// newPartnerCenter returns a partner's configuration if no key is given.
func newPartnerCenter() *PartnerCenter {
	hosts := CloudGlobal.hosts()
	return &PartnerCenter{
		Cloud:            CloudGlobal,
		BaseURL:          hosts.baseURL,
		Authority:        hosts.authority,
		Flow:             FlowAppUser,
		Audience:         hosts.audience,
		TokenEndpoint:    TokenEndpointV2,
		AttemptTimeout:   3 * time.Second,
		BudgetPerMinute:  400,
		BatchConcurrency: 16,
	}
}
