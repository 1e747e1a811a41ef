// The Prometheus operator's CRDs, which are files of its module.
module github.com/eligibilityd/eligibilityd/tools/deploy/crds

go 1.26.7

require github.com/prometheus-operator/prometheus-operator v0.85.0
