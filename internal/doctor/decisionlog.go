package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

// checkDecisions is the check of the decision log.
const checkDecisions = "decision log"

// checkDecisionLog checks that the file of the decision log can be written and rotated,
// and that the key of its hashes can be read. It leaves no file behind.
func checkDecisionLog(cfg config.DecisionLog) []Finding {
	if cfg.File == "" {
		return nil
	}
	var findings []Finding
	if cfg.CustomerIDs == config.CustomerIDsHashed {
		// config.Load has read it a moment ago.
		if contents, err := os.ReadFile(cfg.HashKeyFile); err != nil {
			findings = append(findings, failure(checkDecisions, "make decision_log.hash_key_file readable for the user of the service", "its hash key cannot be read"))
		} else if _, err := config.ParseHashKey(contents); err != nil {
			findings = append(findings, failure(checkDecisions, "correct decision_log.hash_key_file", "its hash key file %v", err))
		}
	}
	if cfg.File == decisionlog.Stdout {
		return append(findings, ok(checkDecisions, "is written to standard output"))
	}
	return append(findings, checkDecisionFile(cfg.File))
}

func checkDecisionFile(path string) Finding {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return failure(checkDecisions, "name a file in decision_log.file", "%s is a directory", path)
	case err == nil && !info.Mode().IsRegular():
		return ok(checkDecisions, "%s is no regular file; it is not rotated", path)
	case err == nil:
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0) //nolint:gosec // the operator names the file
		if err != nil {
			return failure(checkDecisions, "make it readable and writable for the user of the service", "%s cannot be opened: %s", path, causeOf(err))
		}
		_ = f.Close() // nothing was written
	}
	trial, err := os.CreateTemp(filepath.Dir(path), ".eligibilityd-doctor-*")
	if err != nil {
		return failure(checkDecisions, "create the directory of decision_log.file, writable for the user of the service; rotation needs that, too",
			"no file can be created beside %s: %s", path, causeOf(err))
	}
	if err := errors.Join(trial.Close(), os.Remove(trial.Name())); err != nil {
		return warning(checkDecisions, "remove "+trial.Name(), "a file for a trial was left behind: %v", err)
	}
	return ok(checkDecisions, "%s and its directory can be written to", path)
}

// causeOf returns the text of an error without the path.
func causeOf(err error) string {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err.Error()
	}
	return err.Error()
}
