package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// rehearsed holds the answers to a customer's first questions.
type rehearsed struct{ commercial, segment string }

// rehearseAtOnce bounds the concurrent checks. It exceeds the number of seeds
// because some of them take seconds.
const rehearseAtOnce = 64

// rehearse asks about every customer once, on separate simulators and clients:
// the state that dev serves does not change, timelines included, and if a
// customer is throttled, no other is delayed.
func rehearse(ctx context.Context, g guide) ([]rehearsed, error) {
	simulator, err := newSimulator(pcsim.Config{}, g.scripts)
	if err != nil {
		return nil, err
	}
	sim, err := openSimulator(ctx, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	serving, end := context.WithCancel(ctx)
	var serve errgroup.Group
	serve.Go(func() error { return serveSimulator(serving, simulator, sim) })

	answers := make([]rehearsed, len(g.customers))
	var asking errgroup.Group
	asking.SetLimit(rehearseAtOnce)
	for i, customer := range g.customers {
		asking.Go(func() error {
			var err error
			answers[i], err = ask(ctx, customer, sim.api.Addr().String(), filepath.Join(g.dir, customer.ID))
			return err
		})
	}
	err = asking.Wait()
	end()
	return answers, errors.Join(err, serve.Wait())
}

func ask(ctx context.Context, customer pcsim.Customer, simulator, refreshTokenFile string) (rehearsed, error) {
	cfg := config.Default()
	if err := connect(&cfg.Partners[0].PartnerCenter, simulator, refreshTokenFile); err != nil {
		return rehearsed{}, err
	}
	client, err := pcclient.New(app.ClientConfig(cfg.Partners[0].PartnerCenter, zap.NewNop(), nil))
	if err != nil {
		return rehearsed{}, err
	}
	defer client.Close()
	store, err := cache.New(cache.Config{MaxEntries: 16})
	if err != nil {
		return rehearsed{}, err
	}
	service, err := evidence.New(pcclient.NewSource(client), store, app.ServiceConfig(cfg, cfg.Partners[0], zap.NewNop(), nil))
	if err != nil {
		return rehearsed{}, err
	}
	running, end := context.WithCancel(ctx)
	var group errgroup.Group
	group.Go(func() error { return service.Run(running) })
	answers := askBoth(ctx, service, customer)
	end()
	return answers, group.Wait()
}

func askBoth(ctx context.Context, service *evidence.Service, customer pcsim.Customer) rehearsed {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	id, err := eligibility.ParseCustomerID(customer.ID)
	if err != nil {
		return rehearsed{commercial: "no GUID"}
	}
	answers := rehearsed{commercial: inWords(service.Check(ctx, eligibility.Request{CustomerID: id})), segment: "-"}
	if segment := segmentOf(customer); segment != eligibility.SegmentCommercial {
		answers.segment = inWords(service.Check(ctx, eligibility.Request{CustomerID: id, Segment: segment}))
	}
	return answers
}

// inWords formats an answer for a cell of a table.
func inWords(answer eligibility.Answer, err error) string {
	if failure, ok := errors.AsType[*eligibility.Error](err); ok {
		return "error: " + failure.Kind.String()
	}
	if err != nil {
		return "error"
	}
	words := make([]string, 0, len(answer.Reasons))
	for _, reason := range answer.Reasons {
		words = append(words, reason.Code.String())
	}
	if answer.Decision == eligibility.DecisionAllowed {
		return "allowed: " + strings.Join(words, ", ")
	}
	return "blocked: " + strings.Join(words, ", ")
}

// segmentOf returns the segment of a customer's qualifications: education if
// they name none, commercial if the customer has no script for them.
func segmentOf(customer pcsim.Customer) eligibility.Segment {
	for _, step := range customer.Qualifications {
		for _, item := range step.Items {
			switch kind, _ := eligibility.ParseQualificationType(item.Qualification); kind {
			case eligibility.QualificationEducation:
				return eligibility.SegmentEducation
			case eligibility.QualificationGovernmentCommunityCloud:
				return eligibility.SegmentGovernment
			case eligibility.QualificationNonprofit:
				return eligibility.SegmentNonprofit
			default:
			}
		}
	}
	if len(customer.Qualifications) > 0 {
		return eligibility.SegmentEducation
	}
	return eligibility.SegmentCommercial
}
