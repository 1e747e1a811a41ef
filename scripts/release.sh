#!/usr/bin/env bash
# Builds everything that a release has into a directory: archives with the program for
# each platform, their SBOMs, the images, the chart, and the checksums of all of them.
# The same commit makes the same files, to the byte, on machines with the same tools.
#
# The directory appears as a whole at the end, in place of an older release.
#
#   scripts/release.sh VERSION DIRECTORY
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
version=${1:?the version of the release} target=${2:?the directory of the release}
export LC_ALL=C TZ=UTC
umask 022

target=$(realpath -m "$target")
if [[ -e $target ]] && { [[ ! -d $target ]] || [[ -n $(ls -A "$target") && ! -e $target/SHA256SUMS ]]; }; then
	echo "release: $target is not a release: it has no SHA256SUMS" >&2
	exit 1
fi
mkdir -p "${target%/*}/"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Beside the target, so that both can be renamed.
staging=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work" "$staging"' EXIT
out=$staging/new
mkdir "$out"
module=github.com/eligibilityd/eligibilityd
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

# same_time gives every file below a directory the time of the commit.
same_time() { find "$1" -exec touch --no-dereference --date "@$epoch" {} +; }

for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do
	os=${platform%/*} architecture=${platform#*/}
	name=eligibilityd-$version-$os-$architecture
	program=eligibilityd
	[[ $os == windows ]] && program=eligibilityd.exe
	echo "release: $name"
	mkdir "$work/$name"
	make --no-print-directory --silent build VERSION="$version" GOOS="$os" GOARCH="$architecture" PROGRAM="$work/$name/$program"
	# The SBOM has a digest of the tool itself, which must not depend on where it was built. The modules of this
	# repository, which go.mod replaces by directories, get their names.
	GOFLAGS=-trimpath go tool -modfile=tools/deploy/go.mod cyclonedx-gomod bin -json -noserial -notimestamp -std -version "v$version" \
		"$work/$name/$program" 2>"$work/log" >"$work/bom" || { cat "$work/log" >&2; exit 1; }
	sed -E "s|\./([a-z]+)@\(devel\)|$module/\1@v$version|; s|\"\./([a-z]+)\"|\"$module/\1\"|; s|\"\(devel\)\"|\"v$version\"|" "$work/bom" >"$out/$name.cdx.json"
	install -m 644 LICENSE CHANGELOG.md deploy/config.example.yaml deploy/config.partners.example.yaml "$work/$name"
	[[ $os == linux ]] && install -m 644 deploy/systemd/eligibilityd.service "$work/$name"
	same_time "$work/$name"
	if [[ $os == windows ]]; then
		(cd "$work" && find "$name" | sort | zip --quiet -X "$out/$name.zip" -@)
	else
		tar --create --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner --format=ustar "$name" |
			gzip --no-name --best >"$out/$name.tar.gz"
	fi
done

for architecture in amd64 arm64; do
	echo "release: image for $architecture"
	make --no-print-directory --silent image VERSION="$version" GOARCH="$architecture" IMAGE="$out/eligibilityd-$version-linux-$architecture.oci.tar"
done

echo "release: chart"
scripts/chart.sh "$version" "$out" >/dev/null

(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)

if [[ -d $target ]]; then mv -T "$target" "$staging/old"; fi
mv -T "$out" "$target"
