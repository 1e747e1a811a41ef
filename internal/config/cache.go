package config

import "time"

// Cache is the two tiers in which evidence is kept.
type Cache struct {
	// Redis is the tier that replicas share. Optional; none.
	Redis Redis `yaml:"redis"`
	// Local is the tier inside the process; there always is one.
	Local Local `yaml:"local"`
	// Ages is how long evidence counts.
	Ages Ages `yaml:"ages"`
}

// Redis is the shared tier. The service never depends on it: whatever fails
// here counts as a miss.
type Redis struct {
	// Addresses is a list of host:port or unix:///path. One address is a
	// single server, several are the seeds of one cluster, none turns the
	// tier off. Optional; [].
	Addresses []string `yaml:"addresses"`
	// Username is the ACL user. It needs a password. Optional; "".
	Username string `yaml:"username"`
	// Password is the password of that user or, without one, of the server.
	// Conflicts with password_file. Optional; none. After Load it holds the
	// password in either case.
	Password Secret `yaml:"password"`
	// PasswordFile is a file that holds the password and nothing else, but
	// for one newline at its end; read once, at start. Conflicts with
	// password. Optional; "".
	PasswordFile string `yaml:"password_file"`
	// DB is the number of the database; a cluster has 0 only. Optional; 0.
	DB int `yaml:"db"`
	// KeyPrefix begins every key, so that several installations can share a
	// server: 1 to 64 of letters, digits and . _ : -. Optional; eligibility.
	KeyPrefix string `yaml:"key_prefix"`
	// ReadTimeout is how long a check waits for Redis before it goes on
	// without; more than 0. Optional; 50ms.
	ReadTimeout time.Duration `yaml:"read_timeout"`
	// WriteTimeout is how long storing may take, off the caller's path; more
	// than 0. Optional; 100ms.
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// PoolSize is the greatest number of connections of this process to each
	// server; 1 to 10000. Optional; 20.
	PoolSize int `yaml:"pool_size"`
}

// Local is the tier inside the process.
type Local struct {
	// MaxEntries is how many facets are kept; a customer has two. More than
	// 0. Optional; 100000.
	MaxEntries int `yaml:"max_entries"`
	// MaxAge is how long an entry is trusted without asking Redis; without
	// Redis it has no effect. More than 0. Optional; 30s.
	MaxAge time.Duration `yaml:"max_age"`
}

// Ages are the ages of evidence, per outcome.
type Ages struct {
	// Allowed is of the account status Allowed. Optional; 10m, 1h.
	Allowed Age `yaml:"allowed"`
	// NoStatus is of an account that has no status. Optional; 2m, 15m.
	NoStatus Age `yaml:"no_status"`
	// Pending is of the account statuses UnderReview, Unknown, Not Ready and
	// every unrecognised one. Optional; 1m, 24h.
	Pending Age `yaml:"pending"`
	// NotAllowed is of the account status NotAllowed. Optional; 10m, 24h.
	NotAllowed Age `yaml:"not_allowed"`
	// Qualifications is of qualifications none of which is in review.
	// Optional; 15m, 6h.
	Qualifications Age `yaml:"qualifications"`
	// QualificationsInReview is of qualifications with one in review.
	// Optional; 2m, 6h.
	QualificationsInReview Age `yaml:"qualifications_in_review"`
}

// Age is how long one outcome counts; both durations are jittered by 10 % to
// either side.
type Age struct {
	// Fresh is for how long evidence answers without Partner Center being
	// asked; more than 0.
	Fresh time.Duration `yaml:"fresh"`
	// Usable is until what age it answers, flagged stale, while Partner
	// Center cannot be asked; not below fresh.
	Usable time.Duration `yaml:"usable"`
}
