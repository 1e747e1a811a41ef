#!/usr/bin/env bash
# Replaces the files of Swagger UI by those of a release on npm. npm checks them
# against the registry's own digest. Usage: scripts/swagger-ui.sh VERSION
set -euo pipefail
cd "$(dirname "$0")/../internal/rest/swaggerui"

download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
npm pack --silent --pack-destination "$download" "swagger-ui-dist@$1" >/dev/null
tar -xzf "$download"/*.tgz -C "$download"
for file in LICENSE NOTICE favicon-32x32.png swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt swagger-ui.css; do
	cp "$download/package/$file" .
done
echo "$1" >VERSION
sha256sum -- * | grep -v SHA256SUMS >"$download/sums"
mv "$download/sums" SHA256SUMS
