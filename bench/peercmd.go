package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/eligibilityd/eligibilityd/bench/rig"
)

// peer is a server that others offer, and the question that it is asked about a
// customer.
type peer struct {
	method   string
	question func(customer string, store string) []byte // nil if a path is asked for
	budget   float64
}

// third is the budget against servers of the same kind: the service costs a third of
// them at most.
const third = 0.33

// peers are the servers that bench/peers starts, by their kinds.
func peers() map[string]peer {
	return map[string]peer{
		"nginx":     {budget: 1.4},
		"ratelimit": {methodRatelimit, ratelimitQuestion("customer"), third},
		"spent":     {methodRatelimit, ratelimitQuestion("spent"), third},
		"openfga":   {"/openfga.v1.OpenFGAService/Check", openfgaQuestion, third},
		"cerbos":    {"/cerbos.svc.v1.CerbosService/CheckResources", cerbosQuestion, third},
	}
}

func newPeerCommand() *cobra.Command {
	var t target
	var customers int
	var store string
	cmd := &cobra.Command{
		Use:   "peer {" + strings.Join(slices.Sorted(maps.Keys(peers())), "|") + "}",
		Short: "Print a server of bench/peers as an entry of the file for --others",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, known := peers()[args[0]]
			if !known {
				return fmt.Errorf("%q is no peer", args[0])
			}
			t.Method, t.Budget, t.Floor = p.method, p.budget, nameFloorGRPC
			if p.question == nil {
				t.Floor = nameFloorHTTP
			}
			for i := range customers {
				if p.question == nil {
					t.Paths = append(t.Paths, rig.Path(i))
				} else {
					t.Requests = append(t.Requests, p.question(rig.CustomerID(i), store))
				}
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.Name, "name", "", "its name in the report")
	f.StringVar(&t.Address, "address", "", "where it listens")
	f.IntSliceVar(&t.Processes, "pid", nil, "its processes")
	f.IntVar(&customers, "customers", 40_000, "customers that requests ask about")
	f.StringVar(&store, "store", "", "the store of openfga")
	return cmd
}

// field returns an encoded field of a protobuf message: a text, or a message.
func field(number protowire.Number, value string) string {
	return string(protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value))
}

const methodRatelimit = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// ratelimitQuestion returns RateLimitRequests: a domain, and one descriptor of one
// entry. The limit of the key spent is 0.
func ratelimitQuestion(key string) func(customer, store string) []byte {
	return func(customer, _ string) []byte {
		return []byte(field(1, "bench") + field(2, field(1, field(1, key)+field(2, customer))))
	}
}

// openfgaQuestion is a CheckRequest: store, and a tuple of user, relation and object.
func openfgaQuestion(customer, store string) []byte {
	return []byte(field(1, store) + field(2, field(1, "user:"+customer)+field(2, "buyer")+field(3, "product:education")))
}

// cerbosQuestion is a CheckResourcesRequest: a principal with a role, and a resource
// with the action that is asked for.
func cerbosQuestion(customer, _ string) []byte {
	principal := field(1, customer) + field(3, "customer")
	resource := field(1, "product") + field(3, "education")
	return []byte(field(3, principal) + field(4, field(1, "buy")+field(2, resource)))
}
