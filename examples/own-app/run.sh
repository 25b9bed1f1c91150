#!/usr/bin/env bash
# weft run: the sidecar comes up before the application and leaves after it.
set -euo pipefail
cd "$(dirname "$0")"
. ../lib.sh
need curl python3

app_port=$(free_port)
local_port=$(free_port)
start_server
"$WEFT" intention allow client greeter

"$WEFT" token create --service greeter >"$work/greeter.token"
start greeter "$WEFT" run --name greeter --port "$app_port" --check "http://127.0.0.1:$app_port/" \
    --server "$grpc_addr" --token-file "$work/greeter.token" --node example --drain-delay 200ms \
    -- python3 app.py "$app_port"
greeter=$started

# The client's sidecar starts a command, too: it ends with the command, and with its exit code.
"$WEFT" token create --service client --uses 3 >"$work/client.token"
as_client() {
    "$WEFT" run --name client --port 1 --upstream "greeter:$local_port" --server "$grpc_addr" \
        --token-file "$work/client.token" --node example --drain-delay 0s -- "$@"
}
until_ok 10 sh -c "'$WEFT' instances greeter | grep -q passing"
answer=$(as_client curl -sf --retry 20 --retry-all-errors --retry-delay 1 "http://127.0.0.1:$local_port/")
[ "$answer" = "hello from your own application" ] || fail "unexpected answer: $answer"
echo "through the mesh: $answer"

code=0
as_client sh -c 'exit 7' || code=$?
[ "$code" = 7 ] || fail "weft run gave exit code $code instead of the application's 7"
echo "exit code of the application: $code"

stop "$greeter" || fail "weft run did not end cleanly"
grep -q "goodbye" "$work/greeter.log" || fail "the application was not asked to end"
if "$WEFT" instances greeter >/dev/null 2>&1; then fail "the instance is still registered"; fi
echo "drained, ended and deregistered"
echo "OK"
