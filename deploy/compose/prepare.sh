#!/bin/sh
# Makes the files in secrets/ that compose.yaml mounts. Files that exist are kept: remove
# the directory to get new ones.
#
# Containers run as users that the host does not know, and Compose mounts files with the
# owner and mode that they have here. So the files can be read by all, and their
# directory can be entered by nobody but its owner.
set -eu
cd "$(dirname "$0")"

# keep FILE writes standard input to FILE, as a whole or not at all, unless it exists.
keep() {
	if [ -s "$1" ]; then
		cat >/dev/null
	else
		cat >"$1.new"
		chmod 644 "$1.new"
		mv "$1.new" "$1"
	fi
}

# keep_random FILE keeps 64 random hexadecimal digits. They are counted, since a pipe has
# the exit status of its last command only.
keep_random() {
	value=$(od -A n -v -t x1 -N 32 /dev/urandom | tr -d ' \n')
	if [ "${#value}" -ne 64 ]; then
		echo "prepare.sh: no random digits for $1: od failed" >&2
		exit 1
	fi
	printf %s "$value" | keep "$1"
}

mkdir -p secrets
chmod 700 secrets
mkdir -p secrets/state
chmod 777 secrets/state
keep_random secrets/redis-password
password=$(cat secrets/redis-password)
printf 'requirepass %s\n' "$password" | keep secrets/redis.conf
keep_random secrets/integrity-key
keep_random secrets/grafana-password
# The simulator's: eligibilityd simulate --help. The service replaces it.
printf simulator-refresh-token | keep secrets/state/refresh-token
