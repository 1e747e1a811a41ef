#!/usr/bin/env bash
# Checks that the generated files are what proto/ generates: none differs, none
# is missing, none is left over. Generates elsewhere, so that the tree stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
go tool -modfile=tools/go.mod buf generate --output "$fresh"
(cd tools && go run ./openapi "$fresh/internal/rest/openapi")
go tool -modfile=tools/go.mod buf generate --output "$fresh" --template internal/rest/testdata/echo/buf.gen.yaml
# What is not generated there.
cp internal/rest/testdata/echo/buf*.yaml "$fresh/internal/rest/testdata/echo"
cp internal/rest/testdata/echo/v1/echo.{proto,http.yaml} "$fresh/internal/rest/testdata/echo/v1"

same=true
for out in gen/eligibility internal/gateway internal/rest/openapi internal/rest/testdata/echo; do
	diff -ru "$out" "$fresh/$out" || same=false
done
$same || {
	echo "generated files are out of date: run make generate and commit the result" >&2
	exit 1
}
