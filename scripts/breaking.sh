#!/usr/bin/env bash
# Checks that the contract breaks no caller of the last release or, before the
# first one, of main.
set -euo pipefail
cd "$(dirname "$0")/.."

# baseline prints the revision to compare with. In a shallow or detached clone
# there may be none.
baseline() {
	git describe --tags --match 'v*' --abbrev=0 2>/dev/null && return
	local ref
	for ref in refs/remotes/origin/main refs/heads/main; do
		git rev-parse --quiet --verify "$ref^{commit}" >/dev/null && echo "$ref" && return
	done
	return 1
}

if ! against=$(baseline) || ! git cat-file -e "$against:proto" 2>/dev/null; then
	echo "buf breaking: there is no earlier contract to compare with"
	exit
fi

old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
git archive "$against" proto buf.yaml | tar -x -C "$old"
echo "buf breaking: comparing with $against"
go tool -modfile=tools/go.mod buf breaking --against "$old"
