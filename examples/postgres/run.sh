#!/usr/bin/env bash
# app → database: a real PostgreSQL server behind one sidecar, psql and pgbench beside the other.
set -euo pipefail
cd "$(dirname "$0")"
. ../lib.sh
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
need initdb postgres psql pgbench

# PostgreSQL refuses to run as root.
as_postgres=()
if [ "$(id -u)" = 0 ]; then
    need runuser
    as_postgres=(runuser -u postgres --)
    chmod 755 "$work"
fi
mkdir "$work/pg" && { [ "$(id -u)" != 0 ] || chown postgres "$work/pg"; }
pg_port=$(free_port)
local_port=$(free_port)
"${as_postgres[@]}" initdb -D "$work/pg" -U postgres --auth=trust --no-sync >"$work/initdb.log"
start postgres "${as_postgres[@]}" postgres -D "$work/pg" -p "$pg_port" -h 127.0.0.1 -k "" -F

sed "s/port = 15432/port = $pg_port/; s/127.0.0.1:15432/127.0.0.1:$pg_port/" database.hcl >"$work/database.hcl"
sed "s/5432/$local_port/" user-service.hcl >"$work/user-service.hcl"
start_server
inbound=$(free_port)
start_proxy database "$work/database.hcl" --inbound-port "$inbound"
start_proxy user-service "$work/user-service.hcl"
"$WEFT" intention allow user-service database

export PGHOST=127.0.0.1 PGPORT=$local_port PGUSER=postgres PGDATABASE=postgres PGCONNECT_TIMEOUT=5
until_ok 15 psql -qtc 'select 1'
echo "psql through the mesh: $(psql -Atc 'select version()' | cut -d' ' -f1,2)"
# What passes between the two sidecars, when this user may look.
capture=
if command -v tcpdump >/dev/null && [ "$(id -u)" = 0 ]; then
    start tcpdump tcpdump -i lo -s 0 -U -w "$work/capture.pcap" "tcp port $inbound"
    capture=$started
    until_ok 5 grep -q "listening on lo" "$work/tcpdump.log"
    # Lanes that are open already show no handshake: a new one is made for the capture.
    stop_proxy user-service
    start_proxy user-service "$work/user-service.hcl"
    until_ok 15 psql -qtc 'select 1'
fi
pgbench -iq -s 1 >"$work/pgbench-init.log" 2>&1
pgbench -c 8 -j 2 -T "${SECONDS_OF_LOAD:-5}" | tee "$work/pgbench.log" | grep -E 'failed|tps|latency average'
grep -q 'number of failed transactions: 0 ' "$work/pgbench.log" || fail "pgbench saw failures"

if [ -n "$capture" ]; then
    stop "$capture" || true
    # ServerHello's supported_versions extension says 0x0304.
    LC_ALL=C grep -qaP '\x00\x2b\x00\x02\x03\x04' "$work/capture.pcap" || fail "no TLS 1.3 handshake was captured"
    if LC_ALL=C grep -qa pgbench_accounts "$work/capture.pcap"; then fail "the capture shows plaintext"; fi
    echo "captured $(stat -c %s "$work/capture.pcap") bytes between the sidecars: TLS 1.3, no plaintext"
fi
if command -v openssl >/dev/null; then
    openssl s_client -connect "127.0.0.1:$inbound" -tls1_3 -alpn weft/1 </dev/null >"$work/anonymous.txt" 2>&1 || true
    # The client's part of the handshake is over before the server looks at it; then comes the alert.
    grep -qE 'Acceptable client certificate CA names|Requested Signature Algorithms|certificate required' \
        "$work/anonymous.txt" || fail "the sidecar asked for no client certificate"
    echo "a client without a certificate is asked for one"
fi
grep -h '"direction":"inbound"' "$work/proxy-database.log" | grep -o '"src_id":"[^"]*"' | sort | uniq -c

"$WEFT" intention deny user-service database
if psql -qtc 'select 1' 2>"$work/denied.txt"; then fail "psql passed although it is denied"; fi
echo "denied: $(head -1 "$work/denied.txt")"
echo "OK"
