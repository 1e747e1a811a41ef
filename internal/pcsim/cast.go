package pcsim

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// MaxCustomers is how many customers a server holds.
const MaxCustomers = 100_000

// cast is all scripted customers and the progress of each script.
type cast struct {
	limit       int
	perCustomer bool
	fixed       bool // windows

	mu            sync.Mutex
	actors        map[string]*actor   // customer ID → the script in use
	order         []string            // the IDs of actors in the order of their creation
	baseline      map[string]Customer // customer ID → the script after a reset
	baselineOrder []string
	token         playback // the token endpoint's script; if it has no steps, usual answers
	partner       meter
}

type actor struct {
	script         Customer
	began          time.Time // of the first request
	account        playback
	qualifications playback
	meter          meter
}

func newCast(cfg Config) *cast {
	return &cast{
		limit:       cfg.RequestsPerMinute,
		perCustomer: cfg.LimitPerCustomer,
		fixed:       cfg.FixedWindows,
		actors:      map[string]*actor{},
		baseline:    map[string]Customer{},
	}
}

func newActor(c Customer) *actor {
	a := &actor{script: c}
	a.account.steps = c.Account
	a.qualifications.steps = c.Qualifications
	if len(c.Qualifications) == 0 {
		a.qualifications.steps = []Step{{Items: []Qualification{}}}
	}
	return a
}

// admit counts a call and returns how long the caller has to wait.
func (c *cast) admit(id string, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &c.partner
	if a := c.actors[id]; c.perCustomer && a != nil {
		m = &a.meter
	}
	if c.fixed {
		return m.takeFixed(now, c.limit)
	}
	return m.take(now, c.limit)
}

// next plays a step of a customer's script if the tenant, which it also
// returns, is empty. If the id has no script, the tenant is TenantUnknown.
func (c *cast) next(id string, r role, now time.Time) (step Step, tenant string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.actors[id]
	if a == nil {
		return Step{}, TenantUnknown
	}
	if a.script.Tenant != "" {
		return Step{}, a.script.Tenant
	}
	if a.began.IsZero() {
		a.began = now
	}
	if r == roleAccount {
		return a.account.next(now, a.began), ""
	}
	return a.qualifications.next(now, a.began), ""
}

// nextToken plays a step of the token endpoint's script; the zero Step is a
// usual answer.
func (c *cast) nextToken(now time.Time) Step {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.token.steps) == 0 {
		return Step{}
	}
	return c.token.next(now, now)
}

// put adds or replaces customers, all or none. If baseline is set, they survive
// a reset. It reports whether the last one is new.
func (c *cast) put(customers []Customer, baseline bool) (created bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := 0
	for _, cust := range customers {
		if c.actors[cust.ID] == nil {
			fresh++
		}
	}
	if len(c.actors)+fresh > MaxCustomers {
		return false, fmt.Errorf("%d customers are the most that fit", MaxCustomers)
	}
	for _, cust := range customers {
		created = c.set(cust)
		if !baseline {
			continue
		}
		if _, known := c.baseline[cust.ID]; !known {
			c.baselineOrder = append(c.baselineOrder, cust.ID)
		}
		c.baseline[cust.ID] = cust
	}
	return created, nil
}

// set requires mu.
func (c *cast) set(cust Customer) (created bool) {
	if c.actors[cust.ID] == nil {
		created = true
		c.order = append(c.order, cust.ID)
	}
	c.actors[cust.ID] = newActor(cust)
	return created
}

func (c *cast) get(id string) (Customer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.actors[id]; a != nil {
		return a.script.clone(), true
	}
	return Customer{}, false
}

func (c *cast) list() []Customer {
	c.mu.Lock()
	defer c.mu.Unlock()
	customers := make([]Customer, len(c.order))
	for i, id := range c.order {
		customers[i] = c.actors[id].script.clone()
	}
	return customers
}

func (c *cast) remove(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.actors[id] == nil {
		return false
	}
	delete(c.actors, id)
	c.order = slices.DeleteFunc(c.order, func(o string) bool { return o == id })
	return true
}

func (c *cast) setToken(steps []Step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = playback{steps: steps}
}

func (c *cast) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.actors)
	c.order, c.token, c.partner = nil, playback{}, meter{}
	for _, id := range c.baselineOrder {
		c.set(c.baseline[id])
	}
}

// SetCustomer adds a customer or replaces its script, which then starts at its
// first step. If the script is invalid, it returns a *ScriptError.
func (s *Server) SetCustomer(c Customer) error {
	_, err := s.setCustomer(c)
	return err
}

func (s *Server) setCustomer(c Customer) (created bool, err error) {
	c = c.clone()
	c.ID = strings.ToLower(c.ID)
	if err := scriptError(checkCustomer("customers."+c.ID, c)); err != nil {
		return false, fmt.Errorf("pcsim: set customer: %w", err)
	}
	created, err = s.cast.put([]Customer{c}, false)
	if err != nil {
		return false, fmt.Errorf("pcsim: set customer: %w", err)
	}
	return created, nil
}

// DeleteCustomer removes a customer, which is then unknown. It reports whether
// it existed.
func (s *Server) DeleteCustomer(id string) bool { return s.cast.remove(strings.ToLower(id)) }

// Customer returns one customer's script.
func (s *Server) Customer(id string) (Customer, bool) { return s.cast.get(strings.ToLower(id)) }

// Customers returns every customer in the order of creation: the seeds first.
func (s *Server) Customers() []Customer { return s.cast.list() }

// ScriptTokens makes the token endpoints play the given steps, for instance a
// failure and then (an empty Step) the usual answer. If there are no steps,
// answers are as usual. If they are invalid, it returns a *ScriptError.
func (s *Server) ScriptTokens(steps ...Step) error {
	if err := scriptError(checkSteps("steps", steps, roleToken)); err != nil {
		return fmt.Errorf("pcsim: script tokens: %w", err)
	}
	s.cast.setToken(cloneSteps(steps))
	return nil
}

// Reset restores the seeds and the loaded files, played from the start, usual
// token answers and the Config's settings, for every partner. It clears recorded
// requests and counts. Tokens remain valid.
func (s *Server) Reset() {
	for _, other := range s.others() {
		other.Reset()
	}
	s.cast.reset()
	s.journal.reset()
	s.settings.Store(&s.cfg.Settings)
	s.mfaCalls.Store(0)
}
