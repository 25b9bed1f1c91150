#!/usr/bin/env bash
# What a sidecar costs before it does anything: milliseconds from the start of its process to
# `/health/ready` 200, and resident memory after some idle seconds. Five runs and their median, with
# one upstream and a dev server on loopback. Measures the release build, or $WEFT.
set -euo pipefail
cd "$(dirname "$0")"
. ../examples/lib.sh

runs=${RUNS:-5}
idle_s=${IDLE_S:-5}

# is_ready PORT: asks once.
is_ready() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" >&3
        read -r _ code _ <&3
        [ "$code" = 200 ]
    ) 2>/dev/null
}

now_us() { echo "${EPOCHREALTIME/[.,]/}"; }

median() { sort -n | sed -n "$(((runs + 1) / 2))p"; }

grpc=$(free_port)
http=$(free_port)
start server "$WEFT" dev --http-addr "127.0.0.1:$http" --grpc-addr "127.0.0.1:$grpc" --dns-addr off
until_ok 10 is_ready "$http"

cat >"$work/web.hcl" <<HCL
service {
  name = "web"
  port = 1
  connect {
    sidecar_service {
      proxy {
        upstreams {
          destination_name = "db"
          local_bind_port  = $(free_port)
        }
      }
    }
  }
}
HCL

ready=()
resident=()
echo "run  ready_ms  resident_kib"
for run in $(seq "$runs"); do
    admin=$(free_port)
    began=$(now_us)
    start proxy "$WEFT" proxy --config "$work/web.hcl" --server "127.0.0.1:$grpc" \
        --admin-addr "127.0.0.1:$admin" --drain-delay 0s
    proxy=$started
    until is_ready "$admin"; do
        kill -0 "$proxy" 2>/dev/null || fail "the sidecar ended before it was ready"
    done
    ready_us=$(($(now_us) - began))
    sleep "$idle_s"
    kib=$(awk '/^VmRSS/ { print $2 }' "/proc/$proxy/status")
    stop "$proxy"
    ready+=("$(awk "BEGIN { printf \"%.1f\", $ready_us / 1000 }")")
    resident+=("$kib")
    printf '%-3s  %-8s  %s\n' "$run" "${ready[-1]}" "$kib"
done
printf 'median of %s: ready %s ms, resident %s KiB after %s s idle (%s, %s cores)\n' "$runs" \
    "$(printf '%s\n' "${ready[@]}" | median)" "$(printf '%s\n' "${resident[@]}" | median)" \
    "$idle_s" "$(basename "$(dirname "$WEFT")")" "$(nproc)"
