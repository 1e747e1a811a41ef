package main

import (
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/doctor"
)

func TestDoctorSaysHowLongTheCertificateLasts(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := simulator(t)
	const day = 24 * time.Hour
	for lasts, want := range map[time.Duration]doctor.Verdict{30*day + time.Minute: doctor.VerdictOK, 30*day - time.Minute: doctor.VerdictWarning} {
		file, cert := clientCertificate(t, lasts)
		if err := sim.RegisterCertificate(cert); err != nil {
			t.Fatal(err)
		}
		e := consult(t, connection(partnerCenter.URL, tokenFile(t), withCertificate(file)...))
		e.says("client certificate", want, cert.NotAfter.UTC().Format(time.DateOnly), map[doctor.Verdict]string{doctor.VerdictOK: "30 days", doctor.VerdictWarning: "29 days"}[want])
		e.says("token", doctor.VerdictOK)
	}
	file, _ := clientCertificate(t, 90*day) // F-07: nobody knows it
	e := consult(t, connection(partnerCenter.URL, tokenFile(t), withCertificate(file)...))
	e.says("token", doctor.VerdictFailure, "AADSTS700027", "client_certificate_file")
	file, _ = clientCertificate(t, -time.Minute)
	e = consult(t, connection(partnerCenter.URL, tokenFile(t), withCertificate(file)...))
	e.says("configuration", doctor.VerdictFailure, "expired")
	if strings.Contains(e.printed, "PRIVATE KEY") {
		t.Errorf("the key is printed: %s", e.printed)
	}
}
