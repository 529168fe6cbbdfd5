#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh -- what Prometheus gets to read: the chat of the examples, seven
# servers in one process, serves bots; its numbers are fetched as Prometheus
# would, and its own promtool looks at them. Free ports of the loopback; ends
# only what it has started. One line a test; the last is "N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
. tools/tally.sh
BUILD=${BUILD:-build}
out=$BUILD/prom
rm -rf "$out"
mkdir -p "$out"
chat=
finish() {
    [ -z "$chat" ] || kill -9 "$chat"
} 2>/dev/null
trap finish EXIT
trap 'exit 1' INT TERM

verdict() { # NAME WHAT-IS-WRONG
    if [ -z "$2" ]; then pass "$1"; else fail "$1" "$2"; fi
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# get PORT PATH: status line and body
get() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
    tr -d '\r' <&3
    exec 3<&-
}

# value FILE SERIES: the sum of what begins so
value() {
    awk -v s="$2" 'index($0, s) == 1 { n += $NF; found = 1 }
        END { print found ? n : "none" }' "$1"
}

promtool=$(command -v promtool || echo "$BUILD/deps/usr/bin/promtool")
[ -x "$promtool" ] || tools/deps.sh ci >"$out/deps.log" 2>&1
# Below the ports that connections are given, with room for what lies above base.
base=$((12000 + $$ % 50 * 300))
while listens $((base + 14)) || listens $((base + 299)) || listens $((base + 50)); do
    base=$((base + 300))
done
stats=$((base + 299))
"$BUILD/examples/chat/chat" --port-base "$base" --web-port 0 \
    --stats-port "$stats" >"$out/chat.log" 2>&1 &
chat=$!
for _ in $(seq 200); do
    listens "$stats" && break
    sleep 0.05
done
verdict 'the port is open' "$(listens "$stats" || cat "$out/chat.log")"
verdict '... on the loopback alone' "$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v port="$(printf ':%04X' "$stats")" '$4 == "0A" && $2 ~ port "$" && $2 !~ /^0100007F:/')"
"$BUILD/examples/bots/bots" --gate-port $((base + 14)) --users 20 --rooms 2 --seconds 1 \
    >"$out/bots.log" 2>&1
verdict 'bots have been served' "$([ $? -eq 0 ] || tail -n 5 "$out/bots.log")"
get "$stats" /metrics >"$out/answer"
verdict 'the answer is of the right kind' "$(head -n 1 "$out/answer" | grep -vx 'HTTP/1.1 200 OK'
    grep -q '^Content-Type: text/plain; version=0.0.4; charset=utf-8$' "$out/answer" ||
        sed -n 2,5p "$out/answer")"
sed '1,/^$/d' "$out/answer" >"$out/metrics"
verdict 'promtool accepts it' "$("$promtool" check metrics <"$out/metrics" 2>&1)"
verdict 'seven servers tell their sessions' "$(n=$(grep -c '^pomelo_sessions{' "$out/metrics")
    [ "$n" -eq 7 ] || echo "$n do")"
verdict 'each name stands once' "$(grep '^# TYPE' "$out/metrics" | sort | uniq -d)"
verdict 'no number stands twice' "$(grep -v '^#' "$out/metrics" | sed 's/ [^ ]*$//' |
    sort | uniq -d | head -n 3)"
for series in pomelo_handshakes_total pomelo_requests_total pomelo_rpc_calls_total \
    pomelo_pushes_total pomelo_request_seconds_count pomelo_loop_turn_seconds_count \
    process_resident_memory_bytes; do
    verdict "$series has moved" "$(n=$(value "$out/metrics" "$series")
        [ "$n" != none ] && [ "$n" != 0 ] || echo "it is $n")"
done
verdict 'everything else is not found' "$(get "$stats" / | head -n 1 | grep -vx 'HTTP/1.1 404 Not Found')"
kill -TERM "$chat"
wait "$chat"
status=$?
chat=
verdict 'the port goes with the process' "$([ "$status" -eq 0 ] || echo "status $status"
    ! listens "$stats" || echo 'it listens')"
total
