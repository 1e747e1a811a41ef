#!/usr/bin/env bash
# Checks the Helm chart, renders it into deploy/chart/testdata, and packages it into a directory, bin
# unless given. VERSION becomes that of the package and the tag of the image.
#
#   scripts/chart.sh VERSION [DIRECTORY]
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

chart=deploy/chart/eligibilityd
rendered=deploy/chart/testdata
version=${1:?the version of the build} out=${2:-bin}
package=$out/eligibilityd-$version.tgz

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked" "$rendered"/*.yaml.new "$package.new"' EXIT

crds=$(scripts/prometheus-crds.sh)
helm=$(go tool -modfile=tools/deploy/go.mod -n helm)
validate=$(go tool -modfile=tools/deploy/kubectl-validate/go.mod -n kubectl-validate)

cp deploy/observability/{rules.yaml,dashboard.json} "$chart/files/"
files=()
for values in "$rendered"/values/*.yaml; do
	file=$rendered/$(basename "$values")
	"$helm" lint --strict --quiet --namespace shop --kube-version 1.30.0 "$chart" --values "$values"
	"$helm" template eligibilityd "$chart" --namespace shop --kube-version 1.30.0 --values "$values" >"$file.new"
	mv "$file.new" "$file"
	files+=("$file")
done
"$validate" --version 1.30 --local-crds "$crds" "${files[@]}" >/dev/null

# Helm writes the time into a package; packed anew without it, two packages of one tree are equal.
mkdir -p "$out"
"$helm" package "$chart" --version "$version" --app-version "$version" --destination "$unpacked" >/dev/null
tar -xzmf "$unpacked/eligibilityd-$version.tgz" -C "$unpacked"
tar -c --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=ustar -C "$unpacked" eligibilityd |
	gzip -9n >"$package.new"
mv "$package.new" "$package"
echo "$package"
