#!/usr/bin/env bash
# Prints the path of a redis-server that the tests can use, version 7 or newer:
# the rights that docs/install.md names for a cluster are not all known to 6.
# Installs one if there is none, without leaving a service running.
set -euo pipefail

oldest=7

usable() {
	local path major
	path=$(command -v redis-server) || return 1
	major=$("$path" --version | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
	[[ -n $major && $major -ge $oldest ]] && echo "$path"
}

# as_root runs a command as root, or fails if that takes a password.
as_root() {
	if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

with_apt() {
	# Debian starts a service when its package is installed, unless this file says no.
	local policy=/usr/sbin/policy-rc.d
	if [[ ! -e $policy ]]; then
		trap 'as_root rm -f '"$policy" EXIT
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
		as_root chmod 755 "$policy"
	fi
	as_root apt-get update -qq
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server
	if [[ -d /run/systemd/system ]]; then
		as_root systemctl disable --quiet redis-server
	fi
}

usable && exit

if command -v apt-get >/dev/null && as_root true 2>/dev/null; then
	echo "redis-server: installing one of version $oldest or newer" >&2
	with_apt >&2 || true
elif command -v brew >/dev/null; then
	echo "redis-server: installing one of version $oldest or newer" >&2
	brew install --quiet redis >&2 || true
fi
hash -r

usable || {
	cat >&2 <<-END
		redis-server: the tests need version $oldest or newer in PATH, and it could not be installed here.
		  Debian, Ubuntu: sudo apt-get install redis-server
		  Fedora:         sudo dnf install redis
		  Alpine:         sudo apk add redis
		  macOS:          brew install redis
	END
	exit 1
}
