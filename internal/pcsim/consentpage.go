package pcsim

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"strings"
)

// The accounts that the consent page offers, and the tenant of the second.
const (
	// PartnerAccount is a user of the partner's own tenant.
	PartnerAccount = "eligibility@partner.example"
	// ForeignAccount is a user of another tenant. A client must reject it,
	// because its consent belongs to another partner.
	ForeignAccount = "eligibility@elsewhere.example"
	// ForeignTenantID is that other tenant.
	ForeignTenantID = "70000000-0000-4000-8000-000000000002"
)

// consentHTML is the page: plain, and with nothing from another host.
//
//go:embed consent.html
var consentHTML string

// account is a user who can sign in.
type account struct {
	Name   string
	Of     string // for people
	tenant string
	object string // the user's id in the tenant
}

func (s *Server) accounts() []account {
	return []account{
		{PartnerAccount, "of the partner's tenant", s.cfg.TenantID, "0b000000-0000-4000-8000-000000000001"},
		{ForeignAccount, "of another tenant", ForeignTenantID, "0b000000-0000-4000-8000-000000000002"},
	}
}

func (s *Server) account(name string) (account, bool) {
	for _, a := range s.accounts() {
		if strings.EqualFold(a.Name, name) {
			return a, true
		}
	}
	return account{}, false
}

// consentView is the content of the page: a problem, or everything else.
type consentView struct {
	Problem     string
	ClientID    string
	Permissions []string
	Accounts    []account
	Chosen      string
	MFA         bool
}

// consentPage asks the user. If login_hint names an account, it is preselected,
// else the partner's.
func (s *Server) consentPage(w http.ResponseWriter, a authorization) {
	chosen, known := s.account(a.hint)
	if !known {
		chosen = s.accounts()[0]
	}
	permissions := strings.Fields(a.scope)
	if a.resource != "" {
		permissions = append(permissions, a.resource)
	}
	s.page(w, http.StatusOK, consentView{
		ClientID: s.cfg.ClientID, Permissions: permissions,
		Accounts: s.accounts(), Chosen: chosen.Name, MFA: !s.Settings().WithoutMFA,
	})
}

// problem shows an error to the user only; it does not redirect.
func (s *Server) problem(w http.ResponseWriter, code int) {
	s.page(w, http.StatusBadRequest, consentView{Problem: s.describe(code).text})
}

func (s *Server) page(w http.ResponseWriter, status int, view consentView) {
	var page bytes.Buffer
	if err := s.consent.Execute(&page, view); err != nil { // unreachable: plain data
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// No form-action: browsers apply it also to the redirect that follows.
	h.Set("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// An error means that the browser has disconnected.
	_, _ = w.Write(page.Bytes())
}

func parseConsentPage() (*template.Template, error) {
	return template.New("consent").Parse(consentHTML)
}
