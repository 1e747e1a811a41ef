package cache

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

// redisCodes maps the error codes of Redis that are shown to what they mean.
// The text behind a code may repeat arguments, a password among them.
var redisCodes = map[string]string{ //nolint:gochecknoglobals // only read
	"WRONGPASS":   "it rejects the user name or password",
	"NOAUTH":      "it requires a password",
	"NOPERM":      "the user lacks a right",
	"MISCONF":     "it cannot save to disk and refuses writes",
	"OOM":         "its memory is full",
	"READONLY":    "it is a replica",
	"LOADING":     "it is loading its data",
	"MASTERDOWN":  "its link to the primary is down",
	"CLUSTERDOWN": "the cluster is down",
	"CROSSSLOT":   "keys are in different slots",
	"MOVED":       "the slot is on another node",
	"ASK":         "the slot is moving to another node",
	"TRYAGAIN":    "the slot is moving to another node",
	"NOREPLICAS":  "too few replicas are in sync",
	"BUSY":        "a script is running",
	"NOSCRIPT":    "the script is not loaded",
	"UNKILLABLE":  "a script is running",
	"WRONGTYPE":   "the key holds another type",
	"EXECABORT":   "the transaction was aborted",
	"NOPROTO":     "the protocol version is not supported",
	"ERR":         "it rejects the command",
}

// ErrorCode returns the error code of a reply of Redis, such as "WRONGPASS", if
// it is a known one, and else "". For an error inside a script it returns the
// code of the command that failed.
func ErrorCode(err error) string {
	var reply redis.Error
	if err == nil || errors.Is(err, redis.Nil) || !errors.As(err, &reply) {
		return ""
	}
	words := strings.Fields(reply.Error())
	if len(words) == 0 {
		return ""
	}
	if strings.Contains(reply.Error(), "The user executing the script can't ") {
		return "NOPERM"
	}
	first := strings.TrimPrefix(words[0], "-")
	if first != "ERR" && first != "@user_script:" {
		if redisCodes[first] == "" {
			return ""
		}
		return first
	}
	// Version 6 puts the place in front of an error inside a script.
	for _, word := range words[1:] {
		code := strings.Trim(word, "-:")
		if code != "ERR" && code != "ASK" && redisCodes[code] != "" {
			return code
		}
	}
	return "ERR"
}

// ErrorText describes an error of a Redis client by its kind. The text holds
// nothing that the server sent beyond a known error code, and no address, so it
// is fit for logs.
func ErrorText(err error) string {
	var (
		reply   redis.Error
		timeout net.Error
		lookup  *net.DNSError
		errno   syscall.Errno
	)
	if code := ErrorCode(err); code != "" {
		return code + ": " + redisCodes[code]
	}
	if text := tlsErrorText(err); text != "" {
		return text
	}
	switch {
	case err == nil:
		return "no error"
	case errors.Is(err, redis.Nil):
		return "no value"
	case errors.Is(err, errNoToken):
		return errNoToken.Error()
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return "no free connection"
	case errors.Is(err, redis.ErrClosed):
		return "client is closed"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &lookup):
		return "host name cannot be resolved"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "connection closed"
	case errors.As(err, &reply):
		return "unknown error code"
	default:
		return "unreadable reply"
	}
}

// tlsErrorText describes a failure of TLS, and returns "" for another one. The
// library's own texts repeat names of the server's certificate.
func tlsErrorText(err error) string {
	var (
		authority   x509.UnknownAuthorityError
		name        x509.HostnameError
		invalid     x509.CertificateInvalidError
		certificate *tls.CertificateVerificationError
		alert       tls.AlertError
		record      tls.RecordHeaderError
		operation   *net.OpError
	)
	switch {
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &certificate):
		return remote.CertificateError(err).Error()
	case errors.As(err, &alert):
		return alert.Error() // of a fixed list
	case errors.As(err, &record):
		return "tls: the server does not speak TLS"
	case errors.As(err, &operation) && slices.Contains([]string{"remote error", "local error"}, operation.Op):
		return "tls: handshake rejected"
	default:
		return ""
	}
}
