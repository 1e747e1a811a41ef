package pcsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// partner is a partner besides that of the Config.
type partner struct {
	name   string
	server *Server
}

// AddPartner adds a partner, whose application has a client id of its own, and
// returns its server: scripts, limits, settings, tokens and counts are its own, and
// it has no seeds. Its handlers are not needed, since those of s serve all partners:
// the client id of a token request and the token of a call decide whose they are.
func (s *Server) AddPartner(name string, cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = s.cfg.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = s.cfg.Logger
	}
	added, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	s.partnersMu.Lock()
	defer s.partnersMu.Unlock()
	if fault := s.taken(name, added.cfg.ClientID); fault != "" {
		return nil, fmt.Errorf("pcsim: add partner: %s", fault)
	}
	s.partners = append(s.partners, partner{name, added})
	return added, nil
}

// taken returns why a partner cannot be added, or "". partnersMu is held.
func (s *Server) taken(name, clientID string) string {
	switch {
	case name == "" || clientID == "":
		return "name and client_id are required"
	case clientID == s.cfg.ClientID || slices.ContainsFunc(s.partners, func(p partner) bool { return p.server.cfg.ClientID == clientID }):
		return fmt.Sprintf("client_id %q is another partner's", cut(clientID))
	case slices.ContainsFunc(s.partners, func(p partner) bool { return p.name == name }):
		return fmt.Sprintf("partner %q exists", cut(name))
	}
	return ""
}

// Partner returns the server of a partner that was added; of s itself, if the name
// is empty.
func (s *Server) Partner(name string) (*Server, bool) {
	if name == "" {
		return s, true
	}
	s.partnersMu.RLock()
	defer s.partnersMu.RUnlock()
	for _, p := range s.partners {
		if p.name == name {
			return p.server, true
		}
	}
	return nil, false
}

// Partners returns the names of the partners that were added, in that order.
func (s *Server) Partners() []string {
	s.partnersMu.RLock()
	defer s.partnersMu.RUnlock()
	names := make([]string, len(s.partners))
	for i, p := range s.partners {
		names[i] = p.name
	}
	return names
}

// TenantID and ClientID return the identity of the partner's application.
func (s *Server) TenantID() string { return s.cfg.TenantID }

// ClientID is described at TenantID.
func (s *Server) ClientID() string { return s.cfg.ClientID }

func (s *Server) others() []*Server {
	s.partnersMu.RLock()
	defer s.partnersMu.RUnlock()
	servers := make([]*Server, len(s.partners))
	for i, p := range s.partners {
		servers[i] = p.server
	}
	return servers
}

// ofClient returns the server of the partner whose application that is; s if it is
// nobody's.
func (s *Server) ofClient(clientID string) *Server {
	for _, other := range s.others() {
		if other.cfg.ClientID == clientID {
			return other
		}
	}
	return s
}

// ofToken returns the server of the partner to whom the token of a call was issued;
// s if it is nobody's. The key of the tokens depends on the partner.
func (s *Server) ofToken(r *http.Request) *Server {
	others := s.others()
	if len(others) == 0 {
		return s
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	for _, other := range others {
		if _, err := other.tokens.open(strings.TrimSpace(token), useAccess); err == nil {
			return other
		}
	}
	return s
}
