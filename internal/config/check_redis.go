package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

// maxCABytes bounds a file of authorities; the system's own is a quarter of it.
const maxCABytes = 1 << 20

// hashTagFree matches key prefixes without hash tags of Redis Cluster or
// characters that a shell would interpret.
var hashTagFree = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// applyRedisMode sets the mode to cluster if it was not given and there are
// several addresses.
func (l *loader) applyRedisMode() {
	redis := &l.cfg.Cache.Redis
	if _, given := l.origins["cache.redis.mode"]; !given && len(redis.Addresses) > 1 {
		redis.Mode = RedisCluster
	}
}

func (l *loader) checkRedis() {
	redis := &l.cfg.Cache.Redis
	l.checkRedisMode(redis)
	l.checkRedisAddresses(redis)
	l.checkUser("cache.redis.", redis.Username, redis.Password, redis.PasswordFile)
	l.checkEntraID(redis)
	l.checkSentinel(redis)
	l.checkRedisTLS(redis)
	l.checkIntegrityKeys(redis)
	if redis.PasswordFile == "" {
		redis.Password = NewSecret(trimLine(redis.Password.Reveal()))
	}
	if redis.Sentinel.PasswordFile == "" {
		redis.Sentinel.Password = NewSecret(trimLine(redis.Sentinel.Password.Reveal()))
	}
	if !hashTagFree.MatchString(redis.KeyPrefix) {
		l.object("cache.redis.key_prefix", "must be 1 to 64 of letters, digits and . _ : -")
	}
	switch {
	case redis.DB < 0:
		l.object("cache.redis.db", "must be at least 0")
	case redis.DB > 0 && redis.Mode == RedisCluster:
		l.object("cache.redis.db", "must be 0: a cluster has no other database")
	}
}

func (l *loader) checkRedisMode(redis *Redis) {
	if redis.Mode == RedisStandalone && len(redis.Addresses) > 1 {
		l.object("cache.redis.mode", "standalone takes one of cache.redis.addresses; write sentinel or cluster for several")
	}
}

// checkUser records a fault if a user has no password. The keys of both begin
// with prefix.
func (l *loader) checkUser(prefix, username string, password Secret, passwordFile string) {
	if username != "" && password.IsZero() && passwordFile == "" {
		l.object(prefix+"username", "has no effect without %[1]spassword or %[1]spassword_file", prefix)
	}
}

// checkEntraID rejects what would send a token in clear text, and a second
// credential.
func (l *loader) checkEntraID(redis *Redis) {
	const key = "cache.redis.entra_id.enabled"
	if !redis.EntraID.Enabled {
		return
	}
	if !redis.TLS.Enabled {
		l.object(key, "needs cache.redis.tls.enabled: true: tokens are not sent in clear text")
	}
	for _, other := range []struct {
		name  string
		given bool
	}{
		{"username", redis.Username != ""},
		{"password_file", redis.PasswordFile != ""},
		{"password", redis.PasswordFile == "" && !redis.Password.IsZero()},
	} {
		if other.given {
			l.object("cache.redis."+other.name, "conflicts with %s: the identity has no password, and its user is its object id", key)
		}
	}
}

func (l *loader) checkSentinel(redis *Redis) {
	const prefix = "cache.redis.sentinel."
	sentinel := redis.Sentinel
	if redis.Mode == RedisSentinel {
		if sentinel.MasterName == "" && len(redis.Addresses) > 0 {
			l.object(prefix+"master_name", "is required for cache.redis.mode: sentinel: what the sentinels call the primary")
		}
		l.checkUser(prefix, sentinel.Username, sentinel.Password, sentinel.PasswordFile)
		return
	}
	for _, key := range []struct {
		name  string
		given bool
	}{
		{"master_name", sentinel.MasterName != ""},
		{"username", sentinel.Username != ""},
		{"password", !sentinel.Password.IsZero() && sentinel.PasswordFile == ""},
		{"password_file", sentinel.PasswordFile != ""},
	} {
		if key.given {
			l.object(prefix+key.name, "has no effect without cache.redis.mode: sentinel")
		}
	}
}

// checkRedisAddresses never shows an address, because people paste URLs with
// passwords here.
func (l *loader) checkRedisAddresses(redis *Redis) {
	const key = "cache.redis.addresses"
	var problems []string
	for i, address := range redis.Addresses {
		socket, isSocket := strings.CutPrefix(address, "unix://")
		switch {
		case isSocket && !path.IsAbs(socket):
			problems = append(problems, fmt.Sprintf("item %d must be an absolute path after unix://", i+1))
		case isSocket && redis.Mode != RedisStandalone:
			problems = append(problems, fmt.Sprintf("item %d is a socket, which only one standalone server may have", i+1))
		case isSocket && redis.TLS.Enabled:
			problems = append(problems, fmt.Sprintf("item %d is a socket, which has no TLS: set cache.redis.tls.enabled: false", i+1))
		case !isSocket && !isHostPort(address):
			problems = append(problems, fmt.Sprintf("item %d is neither host:port nor unix:///path", i+1))
		case slices.Contains(redis.Addresses[:i], address):
			problems = append(problems, fmt.Sprintf("item %d is there already", i+1))
		}
	}
	if len(problems) > 0 {
		l.object(key, "%s", strings.Join(problems, "; "))
	}
	if redis.TLS.Enabled || redis.Insecure {
		return
	}
	for i, address := range redis.Addresses {
		host, _, _ := net.SplitHostPort(address)
		if isHostPort(address) && !loopback.IsHost(host) {
			l.object(key, "item %d is on another machine, and cache.redis.tls.enabled is false; "+
				"turn TLS on, or set cache.redis.insecure: true if the network is protected otherwise", i+1)
			return
		}
	}
}

const (
	// minIntegrityKey is the minimum length of an integrity key in characters.
	minIntegrityKey = 32
	// minIntegrityVariety is the minimum number of different characters. If a
	// random hexadecimal key has that length, it falls below with a probability
	// of less than one in a billion.
	minIntegrityVariety = 8
)

// checkIntegrityKeys rejects a key if it could be guessed.
func (l *loader) checkIntegrityKeys(redis *Redis) {
	const key, previous = "cache.redis.integrity_key", "cache.redis.integrity_key_previous"
	for _, k := range []struct {
		name, file string
		secret     *Secret
	}{
		{key, redis.IntegrityKeyFile, &redis.IntegrityKey},
		{previous, redis.IntegrityKeyPreviousFile, &redis.IntegrityKeyPrevious},
	} {
		text := strings.Trim(k.secret.Reveal(), " \t\r\n\v\f"+bom)
		*k.secret = NewSecret(text)
		name := k.name
		if k.file != "" {
			name += "_file"
		}
		variety := map[rune]bool{}
		for _, char := range text {
			variety[char] = true
		}
		if text != "" && (len(text) < minIntegrityKey || len(variety) < minIntegrityVariety) {
			l.object(name, "must be at least %d random characters, such as what `openssl rand -base64 32` prints", minIntegrityKey)
		}
	}
	switch {
	case redis.IntegrityKeyPrevious.IsZero():
	case redis.IntegrityKey.IsZero() && redis.IntegrityKeyFile == "":
		l.object(previous, "has no effect without cache.redis.integrity_key or cache.redis.integrity_key_file")
	case redis.IntegrityKey.Equal(redis.IntegrityKeyPrevious):
		l.object(previous, "is the same as cache.redis.integrity_key; give the key that was used before, or none")
	}
}

// checkRedisTLS reads the files and rejects them if they cannot work. It does
// not check expiry: an unavailable shared tier must not prevent a start.
func (l *loader) checkRedisTLS(redis *Redis) {
	const prefix = "cache.redis.tls."
	t := &redis.TLS
	files := []struct {
		name, file string
		text       *Secret
	}{
		{"ca_file", t.CAFile, &t.CA},
		{"certificate_file", t.CertificateFile, &t.Certificate},
		{"key_file", t.KeyFile, &t.Key},
	}
	if !t.Enabled {
		for _, f := range files {
			l.needsTLS(prefix+f.name, f.file)
		}
		l.needsTLS(prefix+"server_name", t.ServerName)
		return
	}
	for _, f := range files {
		if f.file == "" {
			continue
		}
		text, problem := readText(f.file, maxCABytes)
		if problem != "" {
			l.object(prefix+f.name, "%s", problem)
		}
		*f.text = NewSecret(text)
	}
	if t.CAFile != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(t.CA.Reveal())) {
		l.object(prefix+"ca_file", "holds no certificate in PEM")
	}
	switch {
	case t.CertificateFile == "" && t.KeyFile == "":
	case t.KeyFile == "":
		l.object(prefix+"certificate_file", "has no effect without cache.redis.tls.key_file")
	case t.CertificateFile == "":
		l.object(prefix+"key_file", "has no effect without cache.redis.tls.certificate_file")
	case !l.isRejected(prefix + "certificate_file"):
		if _, err := tls.X509KeyPair([]byte(t.Certificate.Reveal()), []byte(t.Key.Reveal())); err != nil {
			l.object(prefix+"key_file", "does not hold, in PEM and not encrypted, the key of the first certificate in cache.redis.tls.certificate_file")
		}
	}
	if t.ServerName != "" && !isHost(t.ServerName) {
		l.object(prefix+"server_name", "is neither a host name nor an IP address")
	}
}

// needsTLS records a fault if a key was given although TLS is off.
func (l *loader) needsTLS(key, value string) {
	if value != "" {
		l.object(key, "has no effect without cache.redis.tls.enabled: true")
	}
}

// TLSConfig returns the TLS configuration for connections to Redis, or nil if
// TLS is off. Each call returns a new one.
func (r Redis) TLSConfig() *tls.Config {
	if !r.TLS.Enabled {
		return nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: r.TLS.ServerName}
	if !r.TLS.CA.IsZero() {
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AppendCertsFromPEM([]byte(r.TLS.CA.Reveal()))
	}
	// Load has rejected every invalid pair, so an error means that there is
	// none.
	if pair, err := tls.X509KeyPair([]byte(r.TLS.Certificate.Reveal()), []byte(r.TLS.Key.Reveal())); err == nil {
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg
}
