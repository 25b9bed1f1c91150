# Helpers of the example scripts: start things, wait for them, stop exactly them.
# Source this file; it sets a trap that ends what `start` began and removes $work.

work=$(mktemp -d)
pids=()
declare -A proxy_pids

cleanup() {
    local status=$?
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ "$status" -ne 0 ]; then
        for log in "$work"/*.log; do
            [ -s "$log" ] && { echo "--- $(basename "$log")"; tail -20 "$log"; }
        done
        echo "FAILED"
    fi
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT

fail() { echo "error: $*" >&2; exit 1; }

need() {
    for program in "$@"; do
        command -v "$program" >/dev/null || fail "this example needs \`$program\`; install it and try again"
    done
}

# The program to try: $WEFT, or the one built from this tree.
if [ -z "${WEFT:-}" ]; then
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    (cd "$root" && cargo build --release --quiet)
    WEFT=$root/target/release/weft
fi

# A local port that nobody listens on.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 900 + 1000 * (RANDOM % 12)))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# start NAME COMMAND…: in the background, output in $work/NAME.log, pid in $started.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    started=$!
    pids+=("$started")
}

# stop PID: asks it to end and waits.
stop() {
    kill "$1"
    wait "$1"
}

# until_ok SECONDS COMMAND…: tries until it succeeds.
until_ok() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "no success in time: $*"
        sleep 0.1
    done
}

# A control plane on free ports; $http_addr and $grpc_addr say where.
start_server() {
    http_addr=127.0.0.1:$(free_port)
    grpc_addr=127.0.0.1:$(free_port)
    export WEFT_HTTP_ADDR=$http_addr
    start server "$WEFT" server --data-dir "$work/data" --http-addr "$http_addr" --grpc-addr "$grpc_addr" --dns-addr off --node example
    until_ok 10 "$WEFT" status
}

# start_proxy NAME FILE [FLAGS…]: the sidecar of the service in FILE, with a token of its own.
start_proxy() {
    local name=$1 file=$2
    shift 2
    "$WEFT" token create --service "$name" >"$work/$name.token"
    start "proxy-$name" "$WEFT" proxy --config "$file" --server "$grpc_addr" \
        --token-file "$work/$name.token" --node example "$@"
    proxy_pids[$name]=$started
}

# stop_proxy NAME: lets it drain.
stop_proxy() {
    stop "${proxy_pids[$1]}"
}
