package config_test

import (
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// A file without a mode, from before modes existed, keeps its meaning.
func TestNumberOfAddressesDecidesTheMode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.RedisMode{
		"{}":                           config.RedisStandalone,
		"{addresses: ['localhost:1']}": config.RedisStandalone,
		"{addresses: ['unix:///s']}":   config.RedisStandalone,
		"{addresses: ['localhost:1', '127.0.0.2:2']}":                                                    config.RedisCluster,
		"{mode: cluster, addresses: ['localhost:1']}":                                                    config.RedisCluster,
		"{mode: standalone, addresses: ['localhost:1'], db: 1}":                                          config.RedisStandalone,
		"{mode: sentinel, addresses: ['localhost:1', '127.0.0.2:2'], sentinel: {master_name: m}, db: 1}": config.RedisSentinel,
		"{mode: sentinel, addresses: []}":                                                                config.RedisSentinel,
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
	const weakKey = "must be at least 32 random characters, such as what `openssl rand -base64 32` prints"
	for text, want := range map[string][]string{
		"{mode: ring}": {at + `mode: "ring" is not one of standalone, sentinel, cluster`},
		"{mode: standalone, addresses: ['[::1]:1', '127.0.0.1:1'], db: 1}": {
			at + "mode: standalone takes one of cache.redis.addresses; write sentinel or cluster for several",
		},
		"{mode: cluster, addresses: ['localhost:1'], db: 1}": {at + "db: must be 0: a cluster has no other database"},
		"{mode: cluster, addresses: ['unix:///s']}": {
			at + "addresses: item 1 is a socket, which only one standalone server may have",
		},
		"{mode: sentinel, addresses: ['unix:///s'], sentinel: {username: u}}": {
			at + "addresses: item 1 is a socket, which only one standalone server may have",
			"cache.redis.sentinel.master_name: is required for cache.redis.mode: sentinel: what the sentinels call the primary",
			at + "sentinel.username: has no effect without cache.redis.sentinel.password or cache.redis.sentinel.password_file",
		},
		"{addresses: ['localhost:1'], sentinel: {master_name: m, username: u, password: p}}": {
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
		"{addresses: ['127.0.0.1:1', 'redis:1', '[::]:1']}": {
			at + "addresses: item 2 is on another machine, and cache.redis.tls.enabled is false; " +
				"turn TLS on, or set cache.redis.insecure: true if the network is protected otherwise",
		},
		"{mode: sentinel, addresses: ['10.0.0.1:1'], sentinel: {master_name: m}}": {
			at + "addresses: item 1 is on another machine, and cache.redis.tls.enabled is false; " +
				"turn TLS on, or set cache.redis.insecure: true if the network is protected otherwise",
		},
		"{integrity_key: 0123456789abcdef0123456789abcde}":         {at + "integrity_key: " + weakKey},
		"{integrity_key: 'abcabcabcabcabcabcabcabcabcabcabcabc'}":  {at + "integrity_key: " + weakKey},
		"{integrity_key: '   0123456789abcdef0123456789abcd    '}": {at + "integrity_key: " + weakKey},
		"{integrity_key_previous: 0123456789abcdef0123456789abcdef}": {
			at + "integrity_key_previous: has no effect without cache.redis.integrity_key or cache.redis.integrity_key_file",
		},
		"{integrity_key: 0123456789abcdef0123456789abcdef, integrity_key_previous: 0123456789abcdef0123456789abcdef}": {
			at + "integrity_key_previous: is the same as cache.redis.integrity_key; give the key that was used before, or none",
		},
		"{integrity_key: 0123456789abcdef0123456789abcdef, integrity_key_previous: short}": {at + "integrity_key_previous: " + weakKey},
	} {
		if diff := cmp.Diff(want, faults(t, "cache: {redis: "+text+"}\n", nil, config.Dev)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestRedisOnAnotherMachineNeedsTLSOrConsent(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"{addresses: ['unix:///s']}",
		"{addresses: ['127.1.2.3:1'], tls: {enabled: false}}",
		"{addresses: ['10.0.0.1:1'], insecure: true}",
		"{addresses: ['redis:1'], tls: {enabled: true}}",
	} {
		if _, err := config.Load(write(t, "config.yaml", "cache: {redis: "+text+"}\n"), nil, config.Dev); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestIntegrityKeysAreTrimmedAndReadFromFiles(t *testing.T) {
	t.Parallel()
	const newKey, oldKey = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	cfg, err := config.Load("", []string{
		"ELIGIBILITY_CACHE__REDIS__INTEGRITY_KEY_FILE=" + write(t, "key", " "+newKey+" \n"),
		"ELIGIBILITY_CACHE__REDIS__INTEGRITY_KEY_PREVIOUS=" + oldKey + "\n",
	}, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	if redis := cfg.Cache.Redis; redis.IntegrityKey.Reveal() != newKey || redis.IntegrityKeyPrevious.Reveal() != oldKey {
		t.Errorf("keys %q and %q", redis.IntegrityKey.Reveal(), redis.IntegrityKeyPrevious.Reveal())
	}
	weak := write(t, "weak", canary)
	_, err = config.Load("", []string{"ELIGIBILITY_CACHE__REDIS__INTEGRITY_KEY_FILE=" + weak}, config.Dev)
	if err == nil || !strings.Contains(err.Error(), "cache.redis.integrity_key_file: must be at least 32 random characters") {
		t.Errorf("error %v", err)
	}
	hidden(t, "the fault", fmt.Sprint(err))
}

func TestRedisTLSRejectsWhatCannotWork(t *testing.T) {
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
	// Load accepts an expired certificate; the servers report it.
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
