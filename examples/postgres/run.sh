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
start_proxy database "$work/database.hcl"
start_proxy user-service "$work/user-service.hcl"
"$WEFT" intention allow user-service database

export PGHOST=127.0.0.1 PGPORT=$local_port PGUSER=postgres PGDATABASE=postgres PGCONNECT_TIMEOUT=5
until_ok 15 psql -qtc 'select 1'
echo "psql through the mesh: $(psql -Atc 'select version()' | cut -d' ' -f1,2)"
pgbench -iq -s 1 >"$work/pgbench-init.log" 2>&1
pgbench -c 8 -j 2 -T "${SECONDS_OF_LOAD:-5}" | tee "$work/pgbench.log" | grep -E 'failed|tps|latency average'
grep -q 'number of failed transactions: 0 ' "$work/pgbench.log" || fail "pgbench saw failures"

"$WEFT" intention deny user-service database
if psql -qtc 'select 1' 2>"$work/denied.txt"; then fail "psql passed although it is denied"; fi
echo "denied: $(head -1 "$work/denied.txt")"
echo "OK"
