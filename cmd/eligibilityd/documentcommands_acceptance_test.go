//go:build acceptance

package main

import "testing"

// TestAcceptanceDeployDocuments follows docs/integrate.md with the tools that it has its
// readers install.
func TestAcceptanceDeployDocuments(t *testing.T) {
	r := newReader(t)
	r.tools = true
	followIntegrate(t, r)
}
