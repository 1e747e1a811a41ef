#!/usr/bin/env bash
# start.sh CUSTOMERS DIR: starts those of the peers that are installed and writes DIR/others.json for `bench compare --others`.
# README.md describes them. stop.sh DIR ends them.
set -euo pipefail
customers=$1 dir=$(mkdir -p "$2" && cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
bench=${BENCH:-$here/../../bin/bench}
: >"$dir/pids" >"$dir/others.jsonl"

# await PORT waits until something listens.
await() {
  for _ in {1..200}; do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep .05; done
  echo "nothing listens on port $1" >&2
  return 1
}
# start NAME COMMAND... starts a server and sets pid.
start() {
  local name=$1
  shift
  "$@" >"$dir/$name.log" 2>&1 &
  pid=$!
  echo "$pid" >>"$dir/pids"
}
# entry KIND FLAG... adds a target.
entry() { "$bench" peer "$1" --customers "$customers" "${@:2}" >>"$dir/others.jsonl"; }
# fill loads the target that was added last, so that its cache is full.
fill() {
  tail -n 1 "$dir/others.jsonl" | jq -s . >"$dir/fill.json"
  "$bench" load --warmup 0 --duration "${FILL:-30s}" "$dir/fill.json" >>"$dir/fill.log"
}

redis() { # PORT
  start "redis-$1" redis-server --port "$1" --bind 127.0.0.1 --save '' --appendonly no --dir "$dir"
  await "$1"
}

if command -v nginx >/dev/null; then
  mkdir -p "$dir/nginx"
  sed "s|@DIR@|$dir/nginx|" "$here/nginx.conf" >"$dir/nginx.conf"
  start nginx nginx -c "$dir/nginx.conf" -e stderr
  await 18081
  workers=$(pgrep -d, -P "$pid" -f 'nginx: worker')
  # Every URL is cached before it is measured.
  seq 0 $((customers - 1)) | awk '{ printf "url = \"http://127.0.0.1:18081/v1/customers/cccccccc-0000-4000-8000-%012x/eligibility\"\n", $1 }' |
    curl --silent --fail --config - >/dev/null
  entry nginx --name 'nginx proxy_cache, no log' --address 127.0.0.1:18081 --pid "$workers"
fi

if command -v ratelimit >/dev/null; then
  redis 18379
  mkdir -p "$dir/ratelimit/config"
  cp "$here/ratelimit.yaml" "$dir/ratelimit/config/bench.yaml"
  port=18060
  for local in 0 67108864; do
    start "ratelimit-$local" env USE_STATSD=false LOG_LEVEL=error RUNTIME_ROOT="$dir" RUNTIME_SUBDIRECTORY=ratelimit RUNTIME_WATCH_ROOT=false \
      REDIS_SOCKET_TYPE=tcp REDIS_URL=127.0.0.1:18379 LOCAL_CACHE_SIZE_IN_BYTES=$local \
      PORT=$port GRPC_PORT=$((port + 1)) DEBUG_PORT=$((port + 2)) ratelimit
    await $((port + 1))
    if [[ $local = 0 ]]; then
      entry ratelimit --name 'ratelimit, Redis' --address 127.0.0.1:$((port + 1)) --pid "$pid"
    else
      entry spent --name 'ratelimit, local cache' --address 127.0.0.1:$((port + 1)) --pid "$pid"
      fill
    fi
    port=$((port + 10))
  done
fi

if command -v openfga >/dev/null; then
  start openfga env OPENFGA_LOG_LEVEL=none OPENFGA_PLAYGROUND_ENABLED=false OPENFGA_METRICS_ENABLED=false \
    OPENFGA_CHECK_QUERY_CACHE_ENABLED=true OPENFGA_CHECK_QUERY_CACHE_TTL=1h OPENFGA_CHECK_CACHE_LIMIT=1000000 \
    openfga run --grpc-addr 127.0.0.1:18101 --http-addr 127.0.0.1:18100
  await 18101
  await 18100
  store=$(curl --silent --fail 127.0.0.1:18100/stores -d '{"name":"bench"}' | jq -r .id)
  curl --silent --fail "127.0.0.1:18100/stores/$store/authorization-models" -d @"$here/openfga.json" >/dev/null
  # A write takes a hundred tuples.
  seq 0 $((customers - 1)) | awk '{ printf "cccccccc-0000-4000-8000-%012x\n", $1 }' |
    jq -nRc '[inputs] | _nwise(100) | {writes: {tuple_keys: map({user: "user:\(.)", relation: "buyer", object: "product:education"})}}' |
    while read -r tuples; do
      curl --silent --fail "127.0.0.1:18100/stores/$store/write" -d "$tuples" >/dev/null
    done
  entry openfga --name 'openfga, cache' --store "$store" --address 127.0.0.1:18101 --pid "$pid"
  fill
fi

if command -v cerbos >/dev/null; then
  mkdir -p "$dir/cerbos"
  cp "$here/cerbos-policy.yaml" "$dir/cerbos/product.yaml"
  start cerbos env CERBOS_NO_TELEMETRY=1 cerbos server --log-level=error \
    --set=server.grpcListenAddr=127.0.0.1:18111 --set=server.httpListenAddr=127.0.0.1:18110 \
    --set=storage.driver=disk --set=storage.disk.directory="$dir/cerbos" --set=telemetry.disabled=true
  await 18111
  entry cerbos --name cerbos --address 127.0.0.1:18111 --pid "$pid"
fi

jq -s . "$dir/others.jsonl" >"$dir/others.json"
jq -r '.[].name' "$dir/others.json"
