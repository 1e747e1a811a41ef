#!/usr/bin/env bash
# The calls that a shop's back end makes, with curl: checkout.sh CUSTOMER_ID [SEGMENT].
# Exit code 0 if the customer may buy, 3 if not, 4 if that is not known.
#
# ELIGIBILITY_URL is where eligibilityd listens; ELIGIBILITY_CA_FILE and
# ELIGIBILITY_TOKEN_FILE are for one with TLS and authentication; LANGUAGES is the
# Accept-Language header of the shop's customer.
set -euo pipefail

url=${ELIGIBILITY_URL:-http://localhost:8080}
customer=${1:?usage: checkout.sh CUSTOMER_ID [SEGMENT]}
segment=${2:-commercial}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

options=(--silent --show-error --max-time 2 --header "Accept-Language: ${LANGUAGES:-en}")
[[ -z ${ELIGIBILITY_CA_FILE:-} ]] || options+=(--cacert "$ELIGIBILITY_CA_FILE")
if [[ -n ${ELIGIBILITY_TOKEN_FILE:-} ]]; then # in a file: arguments can be seen by other users
	printf 'Authorization: Bearer %s\n' "$(<"$ELIGIBILITY_TOKEN_FILE")" >"$work/token"
	options+=(--header "@$work/token")
fi

# ask sends a request, and sets status. The answer is in $work/body.
ask() {
	: >"$work/header"
	: >"$work/body"
	status=$(curl "${options[@]}" --dump-header "$work/header" --output "$work/body" --write-out '%{http_code}' "$@") || status=000
}

# member prints a member of the answer that is a string.
member() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$work/body"; }

# header prints a header of the answer.
header() { grep -i "^$1:" "$work/header" | tr -d '\r' | cut -d ' ' -f 2- || true; }

# canonical prints what is the same in all forms of a customer's ID.
canonical() { printf %s "$1" | tr -cd '[:xdigit:]' | tr '[:upper:]' '[:lower:]'; }

# decide ends the script unless the answer is that the customer may buy.
decide() {
	if [[ $status != 200 ]]; then
		# An error is not a "no": nothing is known. Retry-After is set if asking again helps.
		echo "undecided: HTTP $status $(member reason), retry after $(header Retry-After) s, request $(header X-Request-Id)" >&2
		exit 4
	fi
	local about
	about=$(canonical "$(member customerId)")
	if [[ -z $about || $about != "$(canonical "$customer")" ]]; then
		echo "undecided: the answer is about another customer, request $(header X-Request-Id)" >&2
		exit 4
	fi
	grep -o '"message":"[^"]*"' "$work/body" | sed 's/^"message":"\(.*\)"$/\1/'
	[[ $(member decision) == DECISION_ALLOWED ]] || exit 3
}

# 1. A cart opens: what the checkout will need is fetched. It returns at once, and the
# shop does not depend on it.
ask --request POST --header 'Content-Type: application/json' \
	--data "{\"customerIds\":[\"$customer\"],\"segment\":\"$segment\"}" "$url/v1/customers:prefetchEligibility"

# 2. The checkout: may this customer buy?
ask "$url/v1/customers/$customer/eligibility?segment=$segment"
decide
evidence=$(member evidenceTime)
tag=$(header Etag)

# 3. The page is shown again: unchanged (304) if the shop has the newest answer. The tag
# belongs to the language.
ask --header "If-None-Match: $tag" "$url/v1/customers/$customer/eligibility?segment=$segment"
[[ $status == 304 ]] || decide

# 4. The order is placed: by nothing older than what the customer was shown. The time is
# passed on as the text that it is.
ask --get --data-urlencode "segment=$segment" --data-urlencode "min_evidence_time=$evidence" "$url/v1/customers/$customer/eligibility"
decide
echo "sold"
