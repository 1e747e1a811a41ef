package config

import "time"

// Cache configures the two tiers that keep evidence.
type Cache struct {
	// Redis is the tier that replicas share. Optional; none.
	Redis Redis `yaml:"redis"`
	// Local is the tier inside the process; there always is one.
	Local Local `yaml:"local"`
	// Ages is how long evidence counts.
	Ages Ages `yaml:"ages"`
}

// Redis is the shared tier. The service never depends on it: if anything fails
// here, the read counts as a miss.
type Redis struct {
	// Mode selects what addresses point to: standalone, one server or a proxy
	// in front of several; sentinel, sentinels; cluster, some nodes of one
	// cluster. Optional; cluster if there are several addresses, else
	// standalone. After Load it holds the mode in any case.
	Mode RedisMode `yaml:"mode"`
	// Addresses is a list of host:port or, if mode is standalone, one
	// unix:///path. If it is empty, the tier is off. Optional; [].
	Addresses []string `yaml:"addresses"`
	// Username is the ACL user. It needs a password. Optional; "".
	Username string `yaml:"username"`
	// Password is the password of that user or, if there is no user, of the
	// server. Conflicts with password_file. Optional; none. After Load it holds
	// the password in either case.
	Password Secret `yaml:"password"`
	// PasswordFile is a file that holds the password and nothing else, but
	// for one newline at its end; read once, at start. Conflicts with
	// password. Optional; "".
	PasswordFile string `yaml:"password_file"`
	// EntraID authenticates this process to Azure Managed Redis by its identity.
	EntraID RedisEntraID `yaml:"entra_id"`
	// Sentinel applies only if mode is sentinel.
	Sentinel Sentinel `yaml:"sentinel"`
	// TLS configures encryption of the connections to servers and sentinels.
	TLS RedisTLS `yaml:"tls"`
	// Insecure permits addresses beyond the loopback interface without TLS. Set
	// it only if the network between the replicas and Redis is protected
	// otherwise: passwords and customers' states cross it in clear text.
	// Optional; false.
	Insecure bool `yaml:"insecure"`
	// IntegrityKey authenticates everything that the replicas keep in Redis and
	// send through it: at least 32 characters of random text, the same in all
	// replicas. If it is not set, anybody who can write to Redis can make
	// customers eligible. Conflicts with integrity_key_file. Optional; none.
	// After Load it holds the key in either case.
	IntegrityKey Secret `yaml:"integrity_key"`
	// IntegrityKeyFile is a file that holds the key and nothing else; read
	// once, at start. Conflicts with integrity_key. Optional; "".
	IntegrityKeyFile string `yaml:"integrity_key_file"`
	// IntegrityKeyPrevious is a second key that is accepted but not used for
	// writing, so that the key can be changed one replica at a time. Conflicts
	// with integrity_key_previous_file. Optional; none. After Load it holds
	// the key in either case.
	IntegrityKeyPrevious Secret `yaml:"integrity_key_previous"`
	// IntegrityKeyPreviousFile is a file that holds that key, by the rules of
	// integrity_key_file. Conflicts with integrity_key_previous. Optional; "".
	IntegrityKeyPreviousFile string `yaml:"integrity_key_previous_file"`
	// DB is the number of the database; a cluster has 0 only. Optional; 0.
	DB int `yaml:"db"`
	// KeyPrefix begins every key, so that several installations can share a
	// server: 1 to 64 of letters, digits and . _ : -. Optional; eligibility.
	KeyPrefix string `yaml:"key_prefix"`
	// ReadTimeout is how long a check waits for Redis before it continues
	// without it; more than 0. Optional; 50ms.
	ReadTimeout time.Duration `yaml:"read_timeout"`
	// WriteTimeout is how long a write may take, off the caller's path except for
	// the count of new customers of all replicas; more than 0. Optional; 100ms.
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// PoolSize is the greatest number of connections of this process to each
	// server, subscriptions aside; 1 to 10000. Optional; 20.
	PoolSize int `yaml:"pool_size"`
}

// RedisEntraID replaces the password of Redis by tokens of Microsoft Entra ID.
type RedisEntraID struct {
	// Enabled turns it on: the user is the object id of the identity that
	// azidentity's default credential chain finds, as for refresh_token_vault, and
	// the password its token, which is renewed on open connections before it ends.
	// It needs cache.redis.tls.enabled. Conflicts with username, password and
	// password_file. Optional; false.
	Enabled bool `yaml:"enabled"`
}

// RedisMode is a value of cache.redis.mode.
type RedisMode string

// The values of cache.redis.mode.
const (
	RedisStandalone RedisMode = "standalone"
	RedisSentinel   RedisMode = "sentinel"
	RedisCluster    RedisMode = "cluster"
)

func (RedisMode) words() []string { return []string{"standalone", "sentinel", "cluster"} }

// Sentinel configures the connections that ask the sentinels for the primary.
type Sentinel struct {
	// MasterName is the sentinels' name for the primary, as in their `sentinel
	// monitor`. Required if mode is sentinel.
	MasterName string `yaml:"master_name"`
	// Username is the ACL user of the sentinels, which do not know their
	// servers' users. It needs a password. Optional; "".
	Username string `yaml:"username"`
	// Password is the password of that user or, if there is no user, of the
	// sentinels. Conflicts with password_file. Optional; none. After Load it
	// holds the password in either case.
	Password Secret `yaml:"password"`
	// PasswordFile is a file that holds it, by the rules of
	// cache.redis.password_file. Conflicts with password. Optional; "".
	PasswordFile string `yaml:"password_file"`
}

// RedisTLS configures encryption of connections to Redis: TLS 1.2 or newer. All
// files are PEM and are read once, at start.
type RedisTLS struct {
	// Enabled turns TLS on. Unless it is true, the keys below must be empty.
	// Optional; false.
	Enabled bool `yaml:"enabled"`
	// CAFile holds the certificates of the authorities that sign the servers'
	// certificates. If it is set, the system's authorities are not trusted.
	// Optional; "".
	CAFile string `yaml:"ca_file"`
	// CertificateFile holds the certificate that this process presents,
	// followed by any intermediates. It needs key_file. Optional; "".
	CertificateFile string `yaml:"certificate_file"`
	// KeyFile holds the certificate's key, not encrypted. It needs
	// certificate_file. Optional; "".
	KeyFile string `yaml:"key_file"`
	// ServerName is the name that every server's certificate must hold; set it
	// if sentinels or the cluster announce bare IP addresses. Optional; the
	// host that is connected to.
	ServerName string `yaml:"server_name"`

	// CA, Certificate and Key are not keys. After Load they hold the contents
	// of the files; see Redis.TLSConfig.
	CA          Secret `yaml:"-"`
	Certificate Secret `yaml:"-"`
	Key         Secret `yaml:"-"`
}

// Local is the tier inside the process.
type Local struct {
	// MaxEntries is how many customers are kept, each with both facets. More
	// than 0. Several partners get equal parts of it, and of max_bytes.
	// Optional; 100000.
	MaxEntries int `yaml:"max_entries"`
	// MaxBytes bounds the memory of the entries, approximately; 1 MiB or more.
	// If customers are larger than max_bytes / max_entries, fewer fit.
	// Optional; 134217728 (128 MiB).
	MaxBytes int `yaml:"max_bytes"`
	// MaxAge is how long an entry is trusted before Redis is asked again; if
	// Redis is off, it has no effect. More than 0. Optional; 30s.
	MaxAge time.Duration `yaml:"max_age"`
}

// Ages are the ages of evidence, per outcome.
type Ages struct {
	// Allowed applies to the account status Allowed. Optional; 10m, 1h.
	Allowed Age `yaml:"allowed"`
	// NoStatus applies if an account has no status. Optional; 2m, 15m.
	NoStatus Age `yaml:"no_status"`
	// Pending applies to the account statuses UnderReview, Unknown, Not Ready
	// and every unrecognised one. Optional; 1m, 24h.
	Pending Age `yaml:"pending"`
	// NotAllowed applies to the account status NotAllowed. Optional; 10m, 24h.
	NotAllowed Age `yaml:"not_allowed"`
	// Qualifications applies if none of the qualifications is in review.
	// Optional; 15m, 6h.
	Qualifications Age `yaml:"qualifications"`
	// QualificationsInReview applies if at least one is in review. Optional;
	// 2m, 6h.
	QualificationsInReview Age `yaml:"qualifications_in_review"`
}

// Age bounds the evidence of one outcome; both durations are jittered by 10 %
// to either side.
type Age struct {
	// Fresh is how long evidence answers without a request to Partner Center;
	// more than 0.
	Fresh time.Duration `yaml:"fresh"`
	// Usable is the age until which it answers, flagged stale, when Partner
	// Center cannot be asked; not below fresh.
	Usable time.Duration `yaml:"usable"`
}
