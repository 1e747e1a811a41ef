package app

import (
	"fmt"
	"io"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// NewLogger builds the one logger of the process, which writes to out, never blocks and
// limits the records of failures, and the queue through which it writes.
func NewLogger(cfg config.Log, out io.Writer) (*zap.Logger, *logging.Queue, error) {
	level, err := zapcore.ParseLevel(string(cfg.Level))
	if err != nil {
		return nil, nil, fmt.Errorf("log.level: %w", err)
	}
	logger, queue := logging.New(out, logging.Config{Level: level, Console: cfg.Format == config.LogConsole})
	return logging.LimitFailures(logger, cfg.FailuresPerSecond), queue, nil
}
