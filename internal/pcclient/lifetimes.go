package pcclient

import "time"

// Lifetimes are when what authenticates us ends. A zero time is not known, or there is
// none; the metrics have that of the refresh token.
type Lifetimes struct {
	// AccessToken is the end of the access token in use.
	AccessToken time.Time
	// Certificate is the end of the client certificate in use.
	Certificate time.Time
}

// Lifetimes returns when what authenticates us ends. It does not block.
func (c *Client) Lifetimes() Lifetimes {
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	lives := Lifetimes{Certificate: c.tokens.login.proof.expires()}
	if c.tokens.current.value != "" {
		lives.AccessToken = c.tokens.current.endsAt
	}
	return lives
}
