//go:build race

package decisionlog_test

const raceEnabled = true
