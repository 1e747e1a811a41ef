package config

import "time"

// Feed holds how long changes are kept. Without Redis, the last 10,000 are kept in the
// process.
type Feed struct {
	// Retention is how long a change is kept in Redis, and so the oldest resume
	// token that is accepted. At least 1m. Optional; 168h.
	Retention time.Duration `yaml:"retention"`
	// MaxEvents is about how many changes of each partner are kept in Redis; they
	// are divided among 64 streams. 64 to 10000000. Optional; 200000.
	MaxEvents int `yaml:"max_events"`
}

// Watch holds the limits of streams of changes.
type Watch struct {
	// MaxStreams is how many streams may be open, which do not count as calls in
	// progress; further ones fail with OVERLOADED. 1 to 1000000. Optional; 10000.
	MaxStreams int `yaml:"max_streams"`
}

// Reviews holds how customers under review are checked without a caller. It has no
// effect without Redis.
type Reviews struct {
	// Enabled decides whether they are. Optional; true.
	Enabled bool `yaml:"enabled"`
	// BudgetShare is the part of partner_center.budget_per_minute that these checks
	// may use. More than 0, at most 1. Optional; 0.2.
	BudgetShare float64 `yaml:"budget_share"`
	// GiveUpAfter is after what time under review a customer is no longer checked.
	// At least 1h. Optional; 720h.
	GiveUpAfter time.Duration `yaml:"give_up_after"`
	// MaxTracked is about how many customers and qualifications under review each
	// partner may have; further ones are not checked. 64 to 1000000. Optional; 50000.
	MaxTracked int `yaml:"max_tracked"`
}

// Webhook is a URL that is called with the changes of a partner's customers.
type Webhook struct {
	// Name names the webhook in commands, logs and metrics, and its state in Redis: 1
	// to 32 lower-case letters, digits and hyphens. Unique.
	Name string `yaml:"name"`
	// Partner is the partner whose changes are sent. Optional if there is one
	// partner, or default_partner.
	Partner string `yaml:"partner"`
	// URL is called with POST: an https URL; http is accepted for loopback hosts.
	URL string `yaml:"url"`
	// SecretFile holds the secret that signs the requests, as Standard Webhooks
	// defines it: whsec_ and base64 of 24 to 64 bytes. It is read again when it
	// changes; a second line is an earlier secret, which also signs.
	SecretFile string `yaml:"secret_file"`
	// Segment is the segment whose decisions are sent: commercial, education,
	// government or nonprofit. Optional; commercial.
	Segment WebhookSegment `yaml:"segment"`
	// Only decides what is sent: unblocked sends a change after which a customer may
	// buy who was blocked before; all sends every change of the decision, its
	// reasons or the qualification. Optional; all.
	Only WebhookOnly `yaml:"only"`
	// AllowPrivate permits addresses of private networks. Loopback addresses are
	// permitted for loopback hosts. Optional; false.
	AllowPrivate bool `yaml:"allow_private"`
}

// DefaultWebhook returns a webhook with the defaults of its keys.
func DefaultWebhook() Webhook {
	return Webhook{Segment: WebhookCommercial, Only: WebhookAll}
}

// WebhookSegment is a value of webhooks[].segment.
type WebhookSegment string

// The values of webhooks[].segment.
const (
	WebhookCommercial WebhookSegment = "commercial"
	WebhookEducation  WebhookSegment = "education"
	WebhookGovernment WebhookSegment = "government"
	WebhookNonprofit  WebhookSegment = "nonprofit"
)

func (WebhookSegment) words() []string {
	return []string{"commercial", "education", "government", "nonprofit"}
}

// WebhookOnly is a value of webhooks[].only.
type WebhookOnly string

// The values of webhooks[].only.
const (
	WebhookUnblocked WebhookOnly = "unblocked"
	WebhookAll       WebhookOnly = "all"
)

func (WebhookOnly) words() []string { return []string{"unblocked", "all"} }

func defaultFeed() Feed { return Feed{Retention: 168 * time.Hour, MaxEvents: 200_000} }

func defaultReviews() Reviews {
	return Reviews{Enabled: true, BudgetShare: 0.2, GiveUpAfter: 720 * time.Hour, MaxTracked: 50_000}
}
