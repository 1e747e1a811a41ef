// Package logging writes the log of the process without ever blocking the
// goroutine that logs, and limits how many records of one kind are written.
package logging

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config tunes [New].
type Config struct {
	// Level is the lowest level that is written.
	Level zapcore.Level
	// Console selects a format for people in place of JSON objects.
	Console bool
}

// New returns a logger that writes to out through a [Queue], and that queue. If
// records were dropped, the next record that fits is preceded by one that
// carries their number.
func New(out io.Writer, cfg Config) (*zap.Logger, *Queue) {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	encoding.TimeKey = "time"
	encoder := zapcore.NewJSONEncoder(encoding)
	if cfg.Console {
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	queue := NewQueue(out)
	queue.note = func(dropped int64) []byte {
		line, err := encoder.Clone().EncodeEntry(
			zapcore.Entry{Level: zapcore.WarnLevel, Time: time.Now(), LoggerName: "log", Message: "log records dropped: nothing read them in time"},
			[]zapcore.Field{zap.Int64("records", dropped)})
		if err != nil {
			return nil // a constant entry always encodes
		}
		defer line.Free()
		return append([]byte(nil), line.Bytes()...)
	}
	return zap.New(zapcore.NewCore(encoder, queue, cfg.Level), zap.ErrorOutput(queue)), queue
}
