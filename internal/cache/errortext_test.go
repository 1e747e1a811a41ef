package cache_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// reply is an error reply of Redis.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestErrorTextHoldsNoTextOfRedis(t *testing.T) {
	t.Parallel()
	const canary = "c4nary"
	for _, c := range []struct {
		err        error
		code, text string
	}{
		{nil, "", "no error"},
		{redis.Nil, "", "no value"},
		{reply("WRONGPASS invalid username-password pair: " + canary), "WRONGPASS", "WRONGPASS: it rejects the user name or password"},
		{fmt.Errorf("wrapped: %w", reply("MISCONF "+canary)), "MISCONF", "MISCONF: it cannot save to disk and refuses writes"},
		{reply("ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `" + canary + "`"), "ERR", "ERR: it rejects the command"},
		{reply("ERR Error running script (call to f_" + canary + "): @user_script:1: -OOM " + canary), "OOM", "OOM: its memory is full"},
		{reply("ERR Error running script: The user executing the script can't run this command " + canary), "NOPERM", "NOPERM: the user lacks a right"},
		{reply("ERR The user executing the script can't publish to the channel mentioned in the command"), "NOPERM", "NOPERM: the user lacks a right"},
		// What commands in scripts return in version 6.
		{reply("-READONLY You can't write against a read only replica. " + canary), "READONLY", "READONLY: it is a replica"},
		{reply("@user_script: 12: -MISCONF " + canary), "MISCONF", "MISCONF: it cannot save to disk and refuses writes"},
		{reply("@user_script: 12: The user executing the script can't run this command or subcommand"), "NOPERM", "NOPERM: the user lacks a right"},
		{reply(canary + " x"), "", "unknown error code"},
		{reply(strings.ToUpper(canary)), "", "unknown error code"},
		{reply(""), "", "unknown error code"},
		{errors.New("redis: can't parse reply " + canary), "", "unreadable reply"},
		{fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), "", "connection refused"},
		{&net.OpError{Op: "read", Err: io.EOF}, "", "connection closed"},
		{&net.DNSError{Name: canary, Err: "no such host"}, "", "host name cannot be resolved"},
		{context.DeadlineExceeded, "", "timeout"},
		{context.Canceled, "", "canceled"},
		{redis.ErrClosed, "", "client is closed"},
		{redis.ErrPoolTimeout, "", "no free connection"},
		{&net.OpError{Op: "remote error", Err: errors.New(canary)}, "", "tls: handshake rejected"},
		{tls.RecordHeaderError{Msg: canary}, "", "tls: the server does not speak TLS"},
	} {
		if code, text := cache.ErrorCode(c.err), cache.ErrorText(c.err); code != c.code || text != c.text {
			t.Errorf("%v: %q and %q, want %q and %q", c.err, code, text, c.code, c.text)
		}
	}
}

func TestErrorTextOfARealRedis(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	admin := server.Client()
	defer func() { _ = admin.Close() }()
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "gate", "reset", "on", ">c4nary", "~*", "&*", "+eval", "+get", "+ping").Err(); err != nil {
		t.Fatal(err)
	}
	as := func(user, password string) redis.UniversalClient {
		client, err := cache.NewClient(cache.RedisConfig{Addresses: []string{server.Address}, Username: user, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	if got := cache.ErrorCode(as("gate", "wrong").Ping(t.Context()).Err()); got != "WRONGPASS" {
		t.Errorf("a wrong password: %q", got)
	}
	gate := as("gate", "c4nary")
	if got := cache.ErrorCode(gate.Set(t.Context(), "k", "c4nary", 0).Err()); got != "NOPERM" {
		t.Errorf("a command without a right: %q", got)
	}
	if got := cache.ErrorCode(gate.Eval(t.Context(), `return redis.call('SET', KEYS[1], 'c4nary')`, []string{"k"}).Err()); got != "NOPERM" {
		t.Errorf("the same in a script: %q", got)
	}
	if got := cache.ErrorText(admin.Do(t.Context(), "c4nary").Err()); got != "ERR: it rejects the command" {
		t.Errorf("an unknown command: %q", got)
	}
	server.Kill()
	if got := cache.ErrorText(as("gate", "c4nary").Ping(t.Context()).Err()); got != "no such file or directory" {
		t.Errorf("a server that is down: %q", got)
	}
}
