#!/usr/bin/env bash
# Sees to the programs that it is given, each in a package of the same name: installs
# those that are missing from PATH.
set -euo pipefail

missing=()
for program in "$@"; do
	command -v "$program" >/dev/null || missing+=("$program")
done
[[ ${#missing[@]} == 0 ]] && exit

# as_root runs a command as root, or fails if that takes a password.
as_root() {
	if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

echo "installing ${missing[*]}" >&2
if command -v apt-get >/dev/null && as_root true 2>/dev/null; then
	as_root apt-get update -qq >&2 || true
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2 || true
elif command -v brew >/dev/null; then
	brew install --quiet "${missing[@]}" >&2 || true
fi
hash -r

for program in "${missing[@]}"; do
	command -v "$program" >/dev/null || {
		echo "$program is not in PATH, and could not be installed here" >&2
		exit 1
	}
done
