package pcsim

import (
	"encoding/base64"
	"strings"

	"go.yaml.in/yaml/v3"
)

// script reads a whole script file.
func (d *reader) script(n *yaml.Node) []Customer {
	var customers []Customer
	var wrong []finding
	seen := map[string]bool{}
	found := false
	d.object("", n, members{"customers": func(key string, n *yaml.Node) {
		found = true
		d.entries(key, n, func(id, key string, n *yaml.Node) {
			c := d.customer(key, id, n)
			if seen[c.ID] {
				d.fault(key, n, "is there twice")
			}
			seen[c.ID] = true
			wrong = append(wrong, checkCustomer(key, c)...)
			customers = append(customers, c)
		})
	}})
	if !found && len(d.faults) == 0 {
		d.fault("customers", n, "is missing")
	}
	d.check(wrong)
	return customers
}

// customer reads the script of one customer, whose id stands outside of it
// and may be repeated inside.
func (d *reader) customer(key, id string, n *yaml.Node) Customer {
	c := Customer{ID: strings.ToLower(id)}
	var inner string
	d.object(key, n, members{
		"id": func(key string, n *yaml.Node) {
			d.text(&inner)(key, n)
			if inner != "" && !strings.EqualFold(inner, id) {
				d.fault(key, n, "is %q, but the script is for %s", cut(inner), cut(id))
			}
		},
		"name":   d.text(&c.Name),
		"shows":  d.text(&c.Shows),
		"tenant": d.text(&c.Tenant),
		"account": func(key string, n *yaml.Node) {
			c.Account = d.steps(key, n, roleAccount)
		},
		"qualifications": func(key string, n *yaml.Node) {
			c.Qualifications = d.steps(key, n, roleQualifications)
		},
	})
	return c
}

func (d *reader) steps(key string, n *yaml.Node, r role) []Step {
	var steps []Step
	d.list(key, n, func(key string, n *yaml.Node) {
		steps = append(steps, d.step(key, n, r))
	})
	return steps
}

func (d *reader) step(key string, n *yaml.Node, r role) Step {
	var s Step
	m := members{
		"raw":     func(key string, n *yaml.Node) { s.Raw = d.raw(key, n) },
		"failure": d.text(&s.Failure),
		"latency": d.duration(&s.Latency),
		"times":   d.integer(&s.Times),
		"for":     d.duration(&s.For),
	}
	switch r {
	case roleAccount:
		m["status"] = d.text(&s.Status)
	case roleQualifications:
		m["items"] = func(key string, n *yaml.Node) { s.Items = d.items(key, n) }
	default:
		m["entra_error"] = d.integer(&s.EntraError)
		m["expires_in"] = d.duration(&s.ExpiresIn)
	}
	d.object(key, n, m)
	return s
}

func (d *reader) items(key string, n *yaml.Node) []Qualification {
	items := []Qualification{}
	d.list(key, n, func(key string, n *yaml.Node) {
		var q Qualification
		d.object(key, n, members{
			"qualification":      d.text(&q.Qualification),
			"vettingStatus":      d.text(&q.VettingStatus),
			"vettingReason":      d.text(&q.VettingReason),
			"vettingCreatedDate": d.text(&q.VettingCreatedDate),
			"vettingCreateDate":  d.text(&q.VettingCreateDate),
		})
		items = append(items, q)
	})
	return items
}

func (d *reader) raw(key string, n *yaml.Node) *Raw {
	var r Raw
	var body, encoded string
	d.object(key, n, members{
		"status": d.integer(&r.Status),
		"headers": func(key string, n *yaml.Node) {
			r.Headers = map[string]string{}
			d.entries(key, n, func(name, key string, n *yaml.Node) {
				if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" { // Retry-After: 2
					r.Headers[name] = n.Value
					return
				}
				var value string
				d.text(&value)(key, n)
				r.Headers[name] = value
			})
		},
		"body": d.text(&body),
		"body_base64": func(key string, n *yaml.Node) {
			d.text(&encoded)(key, n)
			decoded, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				d.bad(key, n, "is not base64")
			}
			r.Body = string(decoded)
		},
	})
	if body != "" && encoded != "" {
		d.fault(key, n, "has both body and body_base64: one is possible")
	}
	if body != "" {
		r.Body = body
	}
	return &r
}
