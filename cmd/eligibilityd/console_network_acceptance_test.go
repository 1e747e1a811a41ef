//go:build acceptance

package main

import (
	"encoding/json"
	"net/url"
	"slices"
	"testing"
)

// askedHosts counts the requests of pages by host since the last call, redirects and
// WebSockets included.
func (v *browserVisitor) askedHosts(t *testing.T) map[string]int {
	t.Helper()
	asked := map[string]int{}
	for _, message := range v.logged("performance") {
		var event struct {
			Message struct {
				Method string
				Params struct {
					URL     string
					Request struct{ URL string }
				}
			}
		}
		if err := json.Unmarshal([]byte(message), &event); err != nil {
			t.Fatal(err)
		}
		address := event.Message.Params.Request.URL
		switch event.Message.Method {
		case "Network.requestWillBeSent":
		case "Network.webSocketCreated", "Network.webTransportCreated":
			address = event.Message.Params.URL
		default:
			continue
		}
		to, err := url.Parse(address)
		switch {
		case err != nil:
			asked[address]++
		case slices.Contains([]string{"http", "https", "ws", "wss"}, to.Scheme): // not what the browser itself is made of
			asked[to.Host]++
		}
	}
	return asked
}
