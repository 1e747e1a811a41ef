package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"text/tabwriter"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/server"
)

// guide is the text that dev prints about itself.
type guide struct {
	customers []pcsim.Customer
	on        server.Listeners
	control   net.Addr
	scripts   []string
	dir       string // for files of the rehearsal
	cfg       *config.Config
}

// clients returns what URLs begin with, and the options with which curl, grpcurl and
// check reach the service.
func (g guide) clients() (scheme, curl, grpcurl, check string) {
	scheme, curl, grpcurl = "http", " -s", " -plaintext"
	if g.cfg.Server.TLS.Enabled() {
		// A certificate is trusted if it is named as an authority itself.
		file := g.cfg.Server.TLS.CertificateFile
		scheme, curl, grpcurl, check = "https", " -s --cacert "+file, " -cacert "+file, " --ca-file "+file
	}
	if g.cfg.Auth.Enabled() {
		const header = `'authorization: Bearer TOKEN'`
		curl, grpcurl, check = curl+" -H "+header, grpcurl+" -H "+header, check+" --token-file FILE"
	}
	return scheme, curl, grpcurl, check
}

// printGuide prints the addresses of dev at once, and the customers when the
// answer of each is known.
func printGuide(ctx context.Context, out io.Writer, g guide) error {
	if len(g.customers) == 0 {
		return errors.New("the simulator has no customers")
	}
	allowed, education := exampleIDs(g.customers)
	scheme, curl, grpcurl, check := g.clients()
	console := ""
	if g.cfg.Console.Enabled {
		console = fmt.Sprintf("  console      %s://%s/console   (for people who help customers)\n", scheme, g.on.HTTP.Addr())
	}
	fmt.Fprintf(out, `eligibilityd with an embedded Partner Center simulator
%[13]s  gRPC         %[1]s
  REST         %[9]s://%[2]s   (browse %[9]s://%[2]s/docs)
  admin        http://%[3]s/metrics
  simulator    http://%[4]s/v1/customers   (scripts what a customer gets)

Try:
  curl%[10]s '%[9]s://%[2]s/v1/customers/%[5]s/eligibility'
  curl%[10]s '%[9]s://%[2]s/v1/customers/%[6]s/eligibility?segment=EDUCATION'
  curl%[10]s '%[9]s://%[2]s/v1/customers:batchCheckEligibility' -d '{"requests":[{"customerId":"%[5]s"},{"customerId":"%[6]s","segment":"EDUCATION"}]}'
  grpcurl%[11]s -d '{"customer_id":"%[5]s"}' %[1]s eligibility.v1.EligibilityService/CheckEligibility
  eligibilityd check%[12]s --address %[1]s %[5]s %[6]s

There are two partners. Requests that name none mean %[7]s; the other one gets
another answer about the same customer, and knows no other:
  curl%[10]s '%[9]s://%[2]s/v1/customers/%[5]s/eligibility?partner=%[8]s'
  curl -s 'http://%[4]s/v1/customers?partner=%[8]s'

`, g.on.GRPC.Addr(), g.on.HTTP.Addr(), g.on.Admin.Addr(), g.control, allowed, education, devPartner, devSecondPartner, scheme, curl, grpcurl, check, console)

	answers, err := rehearse(ctx, g)
	if err != nil || ctx.Err() != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CUSTOMER\tSHOWS\tFIRST ANSWER\tFOR ITS SEGMENT")
	warning := ""
	for i, customer := range g.customers {
		first := answers[i].commercial
		if throttles(customer) {
			first += " (!)"
			warning = throttleWarning
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", customer.ID, customer.Name, first, answers[i].segment)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = io.WriteString(out, warning)
	return err
}

// throttleWarning explains the mark of customers that throttle.
const throttleWarning = `
(!) Partner Center answers 429 for this customer. Its Retry-After pauses the calls
    about every customer: until it has passed, only the cache answers.
`

// throttles reports whether a customer's script answers 429.
func throttles(customer pcsim.Customer) bool {
	for _, step := range slices.Concat(customer.Account, customer.Qualifications) {
		if step.Raw != nil && step.Raw.Status == http.StatusTooManyRequests {
			return true
		}
	}
	return false
}

// exampleIDs selects the customers for the example commands.
func exampleIDs(customers []pcsim.Customer) (allowed, education string) {
	allowed, education = customers[0].ID, customers[0].ID
	for _, customer := range customers {
		if len(customer.Account) > 0 && customer.Account[0].Status == "Allowed" {
			allowed = customer.ID
			break
		}
	}
	for _, customer := range customers {
		if segmentOf(customer) == eligibility.SegmentEducation {
			education = customer.ID
			break
		}
	}
	return allowed, education
}
