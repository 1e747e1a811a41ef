package main

import (
	"strings"
	"testing"
	"time"
)

func TestDoctorSaysHowLongTheCertificateLasts(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := simulator(t)
	const day = 24 * time.Hour
	for lasts, want := range map[time.Duration]verdict{30*day + time.Minute: verdictOK, 30*day - time.Minute: verdictWarning} {
		file, cert := clientCertificate(t, lasts)
		if err := sim.RegisterCertificate(cert); err != nil {
			t.Fatal(err)
		}
		e := consult(t, connection(partnerCenter.URL, tokenFile(t), withCertificate(file)...), doctorFlags{}, nil)
		e.says(checkCertificate, want, cert.NotAfter.UTC().Format(time.DateOnly), map[verdict]string{verdictOK: "30 days", verdictWarning: "29 days"}[want])
		e.says(checkToken, verdictOK)
	}
	file, _ := clientCertificate(t, 90*day) // F-07: nobody knows it
	e := consult(t, connection(partnerCenter.URL, tokenFile(t), withCertificate(file)...), doctorFlags{}, nil)
	e.says(checkToken, verdictFailure, "AADSTS700027", "client_certificate_file")
	file, _ = clientCertificate(t, -time.Minute)
	e = consult(t, connection(partnerCenter.URL, tokenFile(t), withCertificate(file)...), doctorFlags{}, nil)
	e.says("configuration", verdictFailure, "expired")
	if strings.Contains(e.printed, "PRIVATE KEY") {
		t.Errorf("the key is printed: %s", e.printed)
	}
}
