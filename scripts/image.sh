#!/usr/bin/env bash
# Builds the last stage of deploy/Dockerfile with buildah, which needs no container
# engine, into an OCI archive. The same files make the same archive, to the byte.
#
#   scripts/image.sh FILES ARCHITECTURE VERSION COMMIT ARCHIVE
#
# FILES is a directory whose folder image `make image-files` has made.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
files=$1 architecture=$2 version=$3 commit=$4 archive=$5

work=$(mktemp -d)
trap 'rm -rf "$work" "$archive.new"' EXIT
# Storage of its own: it leaves the user's images alone, and needs no overlay file system.
buildah() { command buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"; }

mkdir "$work/context"
sed -n '/^FROM scratch$/,$p' deploy/Dockerfile >"$work/Dockerfile"
buildah build --quiet --format docker --isolation chroot --timestamp 0 --identity-label=false \
	--platform "linux/$architecture" --build-context "build=$files" \
	--build-arg "VERSION=$version" --build-arg "COMMIT=$commit" \
	--file "$work/Dockerfile" --tag "eligibilityd:$version" "$work/context" >/dev/null
layout=$work/layout
buildah push --quiet "eligibilityd:$version" "oci:$layout:eligibilityd:$version"

# buildah drops the health check, which the OCI's specification does not know. Docker
# keeps it in the configuration of an OCI image, and so do we.
blob() { echo "$layout/blobs/sha256/${1#sha256:}"; }
# put stores standard input as a blob and prints the digest and the size for a descriptor.
put() {
	cat >"$work/blob"
	local digest size
	digest=$(sha256sum "$work/blob" | cut -d ' ' -f 1)
	size=$(stat -c %s "$work/blob")
	jq -nc --arg digest "sha256:$digest" --argjson size "$size" '{$digest, $size}'
	mv "$work/blob" "$layout/blobs/sha256/$digest"
}
health=$(buildah inspect --type image "eligibilityd:$version" | jq -c .Docker.config.Healthcheck)
digest=$(jq -r '.manifests[0].digest' "$layout/index.json")
manifest=$(blob "$digest")
digest=$(jq -r .config.digest "$manifest")
config=$(blob "$digest")
new=$(jq -c --argjson health "$health" '.config.Healthcheck = $health' "$config" | put)
rm "$config"
new=$(jq -c --argjson new "$new" '.config += $new' "$manifest" | put)
rm "$manifest"
jq -c --argjson new "$new" '.manifests[0] += $new' "$layout/index.json" >"$work/index.json"
mv "$work/index.json" "$layout/index.json"

# docker load reads this index unless its images are kept by containerd.
digest=$(jq -r .digest <<<"$new")
manifest=$(blob "$digest")
jq -c --arg tag "eligibilityd:$version" 'def path: "blobs/" + sub(":"; "/");
	[{Config: .config.digest | path, RepoTags: [$tag], Layers: [.layers[].digest | path]}]' "$manifest" >"$layout/manifest.json"

mkdir -p "$(dirname "$archive")"
tar --create --file "$archive.new" --directory "$layout" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
	--mode=u=rwX,go=rX --format=ustar blobs index.json manifest.json oci-layout
mv "$archive.new" "$archive"
