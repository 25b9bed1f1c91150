#!/usr/bin/env bash
# web → api: an HTTP server behind one sidecar, curl beside the other.
set -euo pipefail
cd "$(dirname "$0")"
need_first() { command -v "$1" >/dev/null || { echo "this example needs $1" >&2; exit 1; }; }
need_first curl
need_first python3
. ../lib.sh

app_port=$(free_port)
local_port=$(free_port)
mkdir "$work/site"
echo "hello through the mesh" >"$work/site/index.html"
# The files of this folder, with free ports instead of the fixed ones.
sed "s/8080/$app_port/" api.hcl >"$work/api.hcl"
sed "s/9191/$local_port/" web.json >"$work/web.json"
"$WEFT" validate "$work/api.hcl" "$work/web.json"

start api python3 -m http.server "$app_port" --bind 127.0.0.1 --directory "$work/site"
start_server
start_proxy api "$work/api.hcl"
start_proxy web "$work/web.json"

url=http://127.0.0.1:$local_port/
echo "without an intention the server denies (its default):"
until_ok 10 grep -q '"sidecar is ready"' "$work/proxy-web.log"
if curl -sS --max-time 5 "$url"; then fail "the request passed although nothing allows it"; fi

"$WEFT" intention allow web api
until_ok 10 curl -sf --max-time 5 "$url"
answer=$(curl -sf "$url")
[ "$answer" = "hello through the mesh" ] || fail "unexpected answer: $answer"
echo "curl $url: $answer"

"$WEFT" intention deny web api
if curl -sS --max-time 5 "$url"; then fail "the request passed although it is denied"; fi
# The access log gathers lines for some milliseconds before it writes.
until_ok 5 grep -q '"reason":"denied"' "$work/proxy-web.log"
grep -h '"reason":"denied"' "$work/proxy-web.log" | tail -1 | cut -c1-400
echo "OK"
