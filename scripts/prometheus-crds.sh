#!/usr/bin/env bash
# Prints the directory of the Prometheus operator's CRDs, fetched as a Go module.
set -euo pipefail
cd "$(dirname "$0")/../tools/deploy/crds"
go mod download github.com/prometheus-operator/prometheus-operator
module=$(go list -m -f '{{.Dir}}' github.com/prometheus-operator/prometheus-operator)
echo "$module/example/prometheus-operator-crd"
