#!/usr/bin/env bash
# stop.sh DIR: ends what start.sh has started there.
set -uo pipefail
while read -r pid; do kill "$pid"; done <"$1/pids"
rm "$1/pids"
