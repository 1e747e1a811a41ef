package main

import (
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

func TestDoctorReportsWhenTheCertificateExpires(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := pcsimtest.Start(t)
	const day = 24 * time.Hour
	for lasts, want := range map[time.Duration]string{30*day + time.Minute: "ok", 30*day - time.Minute: "warning"} {
		file, cert := clientCertificate(t, lasts)
		if err := sim.RegisterCertificate(cert); err != nil {
			t.Fatal(err)
		}
		e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), withCertificate(file)...))
		e.Want("client certificate", want, cert.NotAfter.UTC().Format(time.DateOnly), map[string]string{"ok": "30 days", "warning": "29 days"}[want])
		e.Want("token", "ok")
	}
	file, _ := clientCertificate(t, 90*day) // the simulator does not accept it
	e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), withCertificate(file)...))
	e.Want("token", "failure", "AADSTS700027", "client_certificate_file")
	file, _ = clientCertificate(t, -time.Minute)
	e = consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), withCertificate(file)...))
	e.Want("configuration", "failure", "expired")
	if strings.Contains(e.Text, "PRIVATE KEY") {
		t.Errorf("the key is printed: %s", e.Text)
	}
}
