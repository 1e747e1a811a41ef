// Package tokenstore keeps the refresh token outside the process, so that it
// survives a restart: in a file, or in an Azure Key Vault, from which it reads
// other secrets as well. It and identity alone import Azure's SDK.
package tokenstore

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

// The errors of a store that an operator must resolve, beside identity.ErrRefused
// of a vault. If the error is any other, the store is only unavailable.
var (
	// ErrNone means that no refresh token is stored.
	ErrNone = errors.New("no refresh token is stored")
	// ErrUnreadable means that the store denies access, or that its content
	// cannot be a refresh token.
	ErrUnreadable = errors.New("refresh token cannot be read")
)

// Store holds one refresh token. Others may write to it at any time: a replica
// that rotated the token, or somebody who consented again. Errors are free of
// secrets. It is safe for concurrent use.
type Store interface {
	// Load returns the stored token, ErrNone, ErrUnreadable, identity.ErrRefused, or
	// another error if the store cannot be reached.
	Load(ctx context.Context) (Token, error)
	// Save replaces the stored token, durably, at once or not at all.
	Save(ctx context.Context, token string) error
	// CheckSave returns why Save would fail, as far as that can be checked
	// without a write.
	CheckSave(ctx context.Context) error
}

// Token is a refresh token. The zero value is none.
type Token struct {
	Value string
	// Stored is when it was stored; the zero time if the store does not record it.
	Stored time.Time
}

// maxTokenBytes bounds the size of a token in any store.
const maxTokenBytes = 64 << 10

// Storable reports whether a token can be read back from a store.
func Storable(token string) bool { return len(token) <= maxTokenBytes && plain(token) }

func plain(token string) bool {
	return remote.HeaderSafe(token) && !strings.ContainsAny(token, "\"'`")
}

// errNotPlain describes content that cannot be a refresh token.
var errNotPlain = errors.New("holds a blank, a quote, a control character or a letter beyond ASCII, which no refresh token does")

// Trim removes the byte order mark and the blanks that editors and copying add
// around a token.
func Trim(content string) string {
	return strings.Trim(content, " \t\r\n\v\f\ufeff")
}
