package config_test

import (
	"crypto/rsa"
	"crypto/tls"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// A file from before there were modes means what it always meant.
func TestAddressesSayTheModeThatIsLeftOut(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.RedisMode{
		"{}":                                            config.RedisStandalone,
		"{addresses: ['h:1']}":                          config.RedisStandalone,
		"{addresses: ['unix:///s']}":                    config.RedisStandalone,
		"{addresses: ['h:1', 'h:2']}":                   config.RedisCluster,
		"{mode: cluster, addresses: ['h:1']}":           config.RedisCluster,
		"{mode: standalone, addresses: ['h:1'], db: 1}": config.RedisStandalone,
		"{mode: sentinel, addresses: ['h:1', 'h:2'], sentinel: {master_name: m}, db: 1}": config.RedisSentinel,
		"{mode: sentinel, addresses: []}":                                                config.RedisSentinel,
	} {
		cfg, err := config.Load(write(t, "config.yaml", "cache: {redis: "+text+"}\n"), nil, config.Dev)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := cfg.Cache.Redis.Mode; got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestFaultsOfRedis(t *testing.T) {
	t.Parallel()
	const at = "config.yaml:1: cache.redis."
	for text, want := range map[string][]string{
		"{mode: ring}": {at + `mode: "ring" is not one of standalone, sentinel, cluster`},
		"{mode: standalone, addresses: ['h:1', 'h:2'], db: 1}": {
			at + "mode: standalone takes one of cache.redis.addresses; write sentinel or cluster for several",
		},
		"{mode: cluster, addresses: ['h:1'], db: 1}": {at + "db: must be 0: a cluster has no other database"},
		"{mode: cluster, addresses: ['unix:///s']}": {
			at + "addresses: item 1 is a socket, which only one standalone server may have",
		},
		"{mode: sentinel, addresses: ['unix:///s'], sentinel: {username: u}}": {
			at + "addresses: item 1 is a socket, which only one standalone server may have",
			"cache.redis.sentinel.master_name: is required for cache.redis.mode: sentinel: what the sentinels call the primary",
			at + "sentinel.username: has no effect without cache.redis.sentinel.password or cache.redis.sentinel.password_file",
		},
		"{addresses: ['h:1'], sentinel: {master_name: m, username: u, password: p}}": {
			at + "sentinel.master_name: has no effect without cache.redis.mode: sentinel",
			at + "sentinel.username: has no effect without cache.redis.mode: sentinel",
			at + "sentinel.password: has no effect without cache.redis.mode: sentinel",
		},
		"{addresses: ['unix:///s'], tls: {enabled: true}}": {
			at + "addresses: item 1 is a socket, which has no TLS: set cache.redis.tls.enabled: false",
		},
		"{tls: {ca_file: /x, certificate_file: /x, key_file: /x, server_name: x}}": {
			at + "tls.ca_file: has no effect without cache.redis.tls.enabled: true",
			at + "tls.certificate_file: has no effect without cache.redis.tls.enabled: true",
			at + "tls.key_file: has no effect without cache.redis.tls.enabled: true",
			at + "tls.server_name: has no effect without cache.redis.tls.enabled: true",
		},
		"{tls: {enabled: true, server_name: 'h:1'}}": {at + "tls.server_name: is neither a host name nor an IP address"},
	} {
		if diff := cmp.Diff(want, faults(t, "cache: {redis: "+text+"}\n", nil, config.Dev)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestRedisTLSRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	key, other := must[*rsa.PrivateKey](t)(ourKey()), must[*rsa.PrivateKey](t)(anotherKey())
	certificate := write(t, "cert", certPEM(t, key, -time.Hour, time.Hour))
	const prefix = "ELIGIBILITY_CACHE__REDIS__TLS__"
	const wrongKey = "does not hold, in PEM and not encrypted, the key of the first certificate in cache.redis.tls.certificate_file"
	for name, c := range map[string]struct {
		ca, certificate, key string
		want                 []string
	}{
		"files that are away": {
			ca: "/nowhere", certificate: "/nowhere", key: "/nowhere",
			want: []string{
				prefix + "CA_FILE: cache.redis.tls.ca_file: cannot be read: no such file or directory",
				prefix + "CERTIFICATE_FILE: cache.redis.tls.certificate_file: cannot be read: no such file or directory",
				prefix + "KEY_FILE: cache.redis.tls.key_file: cannot be read: no such file or directory",
			},
		},
		"no authority":   {ca: write(t, "ca", keyPEM(t, key)), want: []string{prefix + "CA_FILE: cache.redis.tls.ca_file: holds no certificate in PEM"}},
		"no key":         {certificate: certificate, want: []string{prefix + "CERTIFICATE_FILE: cache.redis.tls.certificate_file: has no effect without cache.redis.tls.key_file"}},
		"no certificate": {key: certificate, want: []string{prefix + "KEY_FILE: cache.redis.tls.key_file: has no effect without cache.redis.tls.certificate_file"}},
		"another's key":  {certificate: certificate, key: write(t, "key", keyPEM(t, other)), want: []string{prefix + "KEY_FILE: cache.redis.tls.key_file: " + wrongKey}},
		"no PEM":         {certificate: certificate, key: write(t, "key", canary), want: []string{prefix + "KEY_FILE: cache.redis.tls.key_file: " + wrongKey}},
	} {
		got := faults(t, "", []string{
			prefix + "ENABLED=true", prefix + "CA_FILE=" + c.ca, prefix + "CERTIFICATE_FILE=" + c.certificate, prefix + "KEY_FILE=" + c.key,
		}, config.Dev)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRedisTLSConfig(t *testing.T) {
	t.Parallel()
	if config.Default().Cache.Redis.TLSConfig() != nil {
		t.Error("TLS that nobody asked for")
	}
	key := must[*rsa.PrivateKey](t)(ourKey())
	// That a certificate has expired is for the servers to say.
	certificate := write(t, "cert", certPEM(t, key, -2*time.Hour, -time.Hour))
	const prefix = "ELIGIBILITY_CACHE__REDIS__TLS__"
	cfg, err := config.Load("", []string{
		prefix + "ENABLED=true", prefix + "CA_FILE=" + certificate, prefix + "SERVER_NAME=redis.example",
		prefix + "CERTIFICATE_FILE=" + certificate, prefix + "KEY_FILE=" + write(t, "key", keyPEM(t, key)),
	}, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	got := cfg.Cache.Redis.TLSConfig()
	if got.MinVersion != tls.VersionTLS12 || got.ServerName != "redis.example" || got.RootCAs == nil || len(got.Certificates) != 1 || got.InsecureSkipVerify {
		t.Errorf("%+v", got)
	}
	cfg.Cache.Redis.TLS = config.RedisTLS{Enabled: true}
	if plain := cfg.Cache.Redis.TLSConfig(); plain == nil || plain.RootCAs != nil || len(plain.Certificates) != 0 {
		t.Errorf("with the system's authorities: %+v", plain)
	}
}
