package pcclient

import (
	"context"
	"errors"
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
