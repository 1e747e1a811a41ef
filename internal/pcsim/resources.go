package pcsim

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

// The audiences of tokens; the resources reject the retired ones.
const (
	audienceGlobal       = "https://api.partnercenter.microsoft.com"
	audienceChina        = "https://partner.partnercenterapi.microsoftonline.cn"
	audienceRetired      = "https://graph.windows.net"
	audienceRetiredChina = "https://graph.chinacloudapi.cn"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/customers/{id}/validationStatus", s.resource(roleAccount))
	mux.HandleFunc("/v1/customers/{id}/qualifications", s.resource(roleQualifications))
	mux.HandleFunc("/{tenant}/oauth2/token", s.tokenEndpoint(loginV1))
	mux.HandleFunc("/{tenant}/oauth2/v2.0/token", s.tokenEndpoint(loginV2))
	mux.HandleFunc("/{tenant}/oauth2/authorize", s.authorizeEndpoint(loginV1))
	mux.HandleFunc("/{tenant}/oauth2/v2.0/authorize", s.authorizeEndpoint(loginV2))
	mux.HandleFunc("/", s.resource(roleOther))
	return mux
}

// resource serves one of the two resources, or any other path: identification,
// recording and headers are the same for all.
func (s *Server) resource(r role) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		s := s.ofToken(req)
		now := s.cfg.Now()
		id := strings.ToLower(req.PathValue("id"))
		call := s.journal.begin(Request{
			Time: now, Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery,
			Resource: string(r), CustomerID: id,
			RequestID:     req.Header.Get("MS-RequestId"),
			CorrelationID: req.Header.Get("MS-CorrelationId"),
		})
		commonHeaders(w.Header(), req.Header, s.microsoftNow())
		var step Step
		c, a, ok := s.authenticate(req)
		setMFAHeader(w.Header(), req.Header, c)
		if ok {
			step, a = s.decide(r, req, c, id, now)
		}
		if step.Failure != "" {
			s.journal.failed(call, step.Failure)
		}
		// Recorded before it is sent, so that the record exists when the client
		// has the answer.
		s.perform(w, req, step, a, func() { s.journal.answered(call, a.status) })
		s.log.Debug("partner center called", zap.String("path", cut(req.URL.Path)),
			zap.Int("status", a.status), zap.String("failure", step.Failure))
	}
}

// commonHeaders sets the headers of published traces. If MS-RequestId or
// MS-CorrelationId is absent or not a GUID, it is generated; else it is echoed.
func commonHeaders(out, in http.Header, now time.Time) {
	for _, name := range []string{"MS-RequestId", "MS-CorrelationId"} {
		value := in.Get(name)
		if !isGUID(value) {
			value = uuid.NewString()
		}
		out.Set(name, value)
	}
	var vector [12]byte
	_, _ = rand.Read(vector[:]) // never fails
	out.Set("MS-CV", base64.RawStdEncoding.EncodeToString(vector[:])+".0")
	out.Set("MS-ServerId", "102030405")
	out.Set("Date", now.UTC().Format(http.TimeFormat))
}

// decide returns the answer to a call with a valid token: the first rule that
// applies. The customer's script is played only if no rule rejects the call.
func (s *Server) decide(r role, req *http.Request, c claims, id string, now time.Time) (Step, answer) {
	if wait := s.cast.admit(id, now); wait > 0 {
		return Step{}, throttled(wait)
	}
	switch {
	case r == roleOther: // the retired /qualification too
		return Step{}, fault(http.StatusNotFound, 1000, "Not found.")
	case req.Method != http.MethodGet:
		a := fault(http.StatusMethodNotAllowed, 405, "The requested resource does not support this HTTP method.")
		a.headers = map[string]string{"Allow": http.MethodGet}
		return Step{}, a
	case c.appOnly && r == roleAccount:
		return Step{}, fault(http.StatusForbidden, 900329, "The resource does not support app-only authentication.")
	case !isGUID(id):
		return Step{}, fault(http.StatusBadRequest, 900118, "The customer id is not valid.")
	case r == roleAccount && !typeIsAccount(req):
		return Step{}, fault(http.StatusBadRequest, 3000, "The query parameter type is missing or not valid.")
	}
	return s.play(r, id, now)
}

func typeIsAccount(req *http.Request) bool {
	types := req.URL.Query()["type"]
	return len(types) == 1 && strings.EqualFold(types[0], "account")
}

// authenticate returns the claims of the caller's token if it can be decoded,
// and a rejection if it is not valid.
func (s *Server) authenticate(req *http.Request) (claims, answer, bool) {
	c, a, ok := s.judge(req)
	if !ok {
		a.headers = map[string]string{"WWW-Authenticate": "OAuth realm=urn:cpsvc:cpid:" + s.cfg.TenantID}
	}
	return c, a, ok
}

func (s *Server) judge(req *http.Request) (c claims, refusal answer, ok bool) {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if token == "" || !strings.EqualFold(scheme, "Bearer") {
		return claims{}, fault(http.StatusUnauthorized, 800001, "The partner token is missing."), false
	}
	c, err := s.tokens.readAccess(strings.TrimSpace(token))
	switch {
	case errors.Is(err, errTokenExpired):
		return c, answer{status: http.StatusUnauthorized}, false
	case err != nil:
		return c, fault(http.StatusUnauthorized, 400, "Access denied."), false
	case c.audience == audienceRetired || c.audience == audienceRetiredChina:
		return c, fault(http.StatusUnauthorized, 900420, "The audience of the token is no longer supported."), false
	case !c.appOnly && !c.mfa && !s.letPass():
		return c, fault(http.StatusUnauthorized, 900421, "The token has no claim of multi-factor authentication."), false
	}
	return c, answer{}, true
}

// play plays the next step of a customer's script.
func (s *Server) play(r role, id string, now time.Time) (Step, answer) {
	step, tenant := s.cast.next(id, r, now)
	switch {
	case tenant == TenantUnknown:
		return step, fault(http.StatusNotFound, 60003, "The tenant was not found.")
	case tenant == TenantOtherPartner:
		return step, fault(http.StatusForbidden, 20002,
			"The partner does not have a commerce relationship with the customer.")
	case step.Raw != nil:
		return step, step.Raw.answer()
	case step.Status == StatusNone:
		return step, noStatus(id)
	case r == roleAccount:
		return step, jsonAnswer(http.StatusOK, struct {
			Type       string `json:"type"`
			Status     string `json:"status"`
			LastUpdate string `json:"lastUpdateDateTime"` // no longer filled in by Microsoft
		}{"account", step.Status, ""})
	default:
		return step, jsonAnswer(http.StatusOK, step.Items)
	}
}
