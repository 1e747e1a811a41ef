#!/usr/bin/env bash
# Installs the Debian packages of programs that are not in PATH, without leaving a
# service running. Each argument is PROGRAM, or PROGRAM=PACKAGE if the names differ.
set -euo pipefail

missing=()
for wanted in "$@"; do
	command -v "${wanted%%=*}" >/dev/null || PATH=$PATH:/usr/sbin command -v "${wanted%%=*}" >/dev/null || missing+=("${wanted#*=}")
done
[[ ${#missing[@]} == 0 ]] && exit

# as_root runs a command as root, or fails if that takes a password.
as_root() {
	if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
	echo "install these packages, or others with the same programs: ${missing[*]}" >&2
	exit 1
fi
echo "installing ${missing[*]}" >&2
# Debian starts a service when its package is installed, unless this file says no.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	trap 'as_root rm -f '"$policy" EXIT
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
	as_root chmod 755 "$policy"
fi
as_root apt-get update -qq >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
