package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asPipeline is the variable that makes the test binary run as the program.
const asPipeline = "TEST_AS_PIPELINE"

func TestMain(m *testing.M) {
	if os.Getenv(asPipeline) != "" {
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
