package rig

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/bench/load"
)

// seededCustomer is one of those that `eligibilityd dev` always plays.
const seededCustomer = "a0000000-0000-4000-8000-000000000001"

// settleTime is how long after its first answer a service counts as idle: it first asks
// about its customers itself, of whom some are slow.
const settleTime = 3 * time.Second

// Dev is the cost of a start of `eligibilityd dev`.
type Dev struct {
	// FirstAnswer is the time from the start of the process to its first answer
	// over REST.
	FirstAnswer time.Duration
	// IdleBytes is the memory of the process half a second later.
	IdleBytes int64
}

// StartDev starts `eligibilityd dev`, sends requests until it answers, and ends
// it.
func StartDev(ctx context.Context, service string) (Dev, error) {
	var address Server
	if err := freeAddresses(ctx, &address.GRPC, &address.HTTP, &address.Admin); err != nil {
		return Dev{}, err
	}
	began := time.Now()
	p, err := start("eligibilityd dev", service, []string{
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=" + address.GRPC,
		"ELIGIBILITY_SERVER__HTTP__ADDRESS=" + address.HTTP,
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS=" + address.Admin,
	}, "dev", "--control-address", "127.0.0.1:0")
	if err != nil {
		return Dev{}, err
	}
	defer p.stop()
	if err := p.await(ctx, time.Millisecond, answers("http://"+address.HTTP+"/v1/customers/"+seededCustomer+"/eligibility")); err != nil {
		return Dev{}, err
	}
	dev := Dev{FirstAnswer: time.Since(began)}
	time.Sleep(settleTime)
	dev.IdleBytes, err = load.RSS(p.pid())
	return dev, err
}
