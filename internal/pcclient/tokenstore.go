package pcclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// RefreshTokenLife is how long a refresh token works after it was handed out.
// Each renewal brings a new one; nobody can configure it.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/refresh-tokens
// (read 2026-11-21)
const RefreshTokenLife = 90 * 24 * time.Hour

// Why a store gives no refresh token, where somebody must act. Any other error
// of a store says that it cannot be asked now.
var (
	// ErrNoRefreshToken says that none is stored.
	ErrNoRefreshToken = errors.New("no refresh token is stored")
	// ErrRefreshTokenStore says that the store refuses us, or holds what cannot
	// be a refresh token.
	ErrRefreshTokenStore = errors.New("refresh token cannot be read")
)

// errNoToken describes content that cannot be a refresh token.
var errNoToken = errors.New("holds a blank, a quote, a control character or a letter beyond ASCII, which no refresh token does")

// trimToken returns the content of a store without the byte order mark and the
// blanks around it that editors and copying add.
func trimToken(content string) string {
	return strings.Trim(content, " \t\r\n\v\f\ufeff")
}

// storable reports whether a refresh token can be read back from a store.
func storable(token string) bool { return headerSafe(token) && !strings.ContainsAny(token, "\"'`") }

// tokenStore is where the refresh token outlives the process. Others may write
// there at any time: a replica that rotated it, or somebody who consented
// again. Its errors are free of secrets.
type tokenStore interface {
	load(ctx context.Context) (storedToken, error)
	// save replaces what is stored, durably, at once or not at all.
	save(ctx context.Context, token string) error
	// canSave reports why save would fail, as far as that shows beforehand.
	canSave(ctx context.Context) error
}

// storedToken is a refresh token and when it was stored. The zero value is none.
type storedToken struct {
	value string
	born  time.Time
}

// RefreshToken looks whether a refresh token is stored, and returns since when;
// the zero time where the store does not say. It returns ErrNoRefreshToken or
// ErrRefreshTokenStore where somebody must act, and another error where the
// store cannot be asked now. It takes 5 s at most. With FlowAppOnly there is
// none to look for, and no error.
func (c *Client) RefreshToken(ctx context.Context) (since time.Time, err error) {
	if c.tokens.login.refreshToken == nil {
		return time.Time{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stored, err := c.tokens.login.refreshToken.store.load(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("partner center: %w", err)
	}
	return stored.born, nil
}
