package logging

import (
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// maxKinds bounds the kinds of failure that are counted apart. Messages are constants
// of the program; further ones share a limit.
const maxKinds = 512

// LimitFailures returns logger with at most perSecond records a second at levels warn
// and error of each kind: its name and message. The next record of a kind carries the
// number of those that were suppressed in left_out. A logger derived from it by [Limit]
// or [OwnLimits] counts against its own limits only.
func LimitFailures(logger *zap.Logger, perSecond int) *zap.Logger {
	kinds := &kinds{perSecond: perSecond, limiters: make(map[kind]*Limiter)}
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return failures{core, kinds} }))
}

// OwnLimits returns logger without the limits of [LimitFailures], for records that are
// limited by something else than their message.
func OwnLimits(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(withoutFailures))
}

func withoutFailures(core zapcore.Core) zapcore.Core { //nolint:ireturn // zap.WrapCore asks for it
	if limited, ok := core.(failures); ok {
		return limited.Core
	}
	return core
}

// kind is what records of a failure have in common.
type kind struct{ logger, message string }

// kinds holds the limit of each kind.
type kinds struct {
	perSecond int

	mu       sync.Mutex
	limiters map[kind]*Limiter // guarded by mu
}

func (k *kinds) of(entry zapcore.Entry) *Limiter {
	k.mu.Lock()
	defer k.mu.Unlock()
	of := kind{entry.LoggerName, entry.Message}
	limiter, known := k.limiters[of]
	if !known {
		if len(k.limiters) >= maxKinds {
			of = kind{}
		}
		if limiter = k.limiters[of]; limiter == nil {
			limiter = NewLimiter(k.perSecond, time.Second)
			k.limiters[of] = limiter
		}
	}
	return limiter
}

// failures is the core of [LimitFailures].
type failures struct {
	zapcore.Core

	kinds *kinds
}

// With adds fields to the records that follow.
func (f failures) With(fields []zapcore.Field) zapcore.Core { //nolint:ireturn // zapcore.Core asks for it
	return failures{f.Core.With(fields), f.kinds}
}

// Check adds the core to checked if the record is written.
func (f failures) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Level != zapcore.WarnLevel && entry.Level != zapcore.ErrorLevel {
		return f.Core.Check(entry, checked)
	}
	return limited{f.Core, f.kinds.of(entry)}.Check(entry, checked)
}
