#!/bin/bash
# SPDX-License-Identifier: MIT
# million.sh [N] -- N idle sessions (1,000,000) on one connector, heartbeating
# every 60 s: raises the limits where it may, opens them from several loopback
# addresses, says what one costs, and that all are still there two minutes
# later. No gate: where open files are capped it opens as many as it can.
set -u
BUILD=${BUILD:-build}
N=${1:-1000000}
BASE=18000 # below the ports that connections are given
PORT=$((BASE + 3910))
EACH=50000 # sessions of one load generator

[ "$(id -u)" -ne 0 ] || {
    sysctl -qw fs.nr_open=2200000 fs.file-max=4400000 net.core.somaxconn=4096 2>/dev/null
    prlimit --pid $$ --nofile=2100000:2100000 2>/dev/null
}
ulimit -n "$(ulimit -Hn)"
most=$(($(ulimit -n) - 200))
if [ "$N" -gt "$most" ]; then
    echo "million.sh: open files are capped at $(ulimit -n): $most sessions instead of $N"
    N=$most
fi

log=$(mktemp)
"$BUILD/test/bench/server" --port-base $BASE --id connector-1 --heartbeat 60 --counters >"$log" 2>&1 &
server=$!
trap 'kill $server $loads 2>/dev/null; wait; rm -f "$log" "$log".*' EXIT
loads=
for _ in $(seq 100); do
    grep -q ready "$log" && break
    sleep 0.05
done
kill -0 $server 2>/dev/null || {
    cat "$log"
    exit 1
}
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$server/status"; }
open() { ls "/proc/$server/fd" | wc -l; }
before=$(rss)
files=$(open)
for from in $(seq 0 $EACH $((N - 1))); do
    count=$((N - from < EACH ? N - from : EACH))
    "$BUILD/test/bench/loadgen" connect --conns $count --port $PORT --secs 150 --first "$from" >"$log.$from" &
    loads="$loads $!"
done
for _ in $(seq 600); do
    [ ! -t 1 ] || printf '\r%s sessions ' $(($(open) - files))
    [ $(($(open) - files)) -ge "$N" ] && break
    kill -0 $server || exit 1
    sleep 1
done
after=$(rss)
echo
echo "$N sessions: $(((after - before) * 1024 / N)) bytes each, $((after / 1024)) MiB in all"
echo "waiting for two heartbeats ..."
sleep 130
echo "still there: $(($(open) - files))"
[ $(($(open) - files)) -ge "$N" ]
