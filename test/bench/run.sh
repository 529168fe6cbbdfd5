#!/bin/bash
# SPDX-License-Identifier: MIT
# run.sh -- `make bench`: our server and a floor that nothing can beat, in turn,
# in one run. CPU of the servers per unit of work, medians, ratios with the
# limit of each row. Ends with "N passed, N failed"; the tables are also in
# build/bench.txt, the ratios in build/bench.svg.
#
#   BENCH_RUNS=9    how often each row is measured (3)
#   BENCH_SECS=3    seconds of each measurement (1.5)
#   BENCH_ROWS=re   only the rows whose name matches
#   BENCH_POMELO=1  also Pomelo on Node, brought by npm into build/
#
# Nothing is pinned: server, generator and kernel share the cores; both sides of
# a ratio do so alike.
set -u
. tools/tally.sh
export LC_ALL=C
BUILD=${BUILD:-build}
RUNS=${BENCH_RUNS:-3}
SECS=${BENCH_SECS:-1.5}
ROWS=${BENCH_ROWS:-.}
BASE=${BENCH_PORTS:-20000} # added to the ports of the server
BIN=$BUILD/test/bench
FRONT=$((BASE + 3910))
FLOOR=$((BASE + 3990))
dir=$(mktemp -d) || exit 1
pids=
stop() { # PIDS
    for p in "$@"; do kill "$p" 2>/dev/null; done
    for p in "$@"; do wait "$p" 2>/dev/null; done
}
trap 'stop $pids; rm -rf "$dir"' EXIT
table=$BUILD/bench.txt
: >"$table"
: >"$dir/ratios"

say() { printf '%s\n' "$*" | tee -a "$table"; }
progress() { [ ! -t 2 ] || printf '\r\033[K%s' "$*" >&2; }
wanted() { printf '%s\n' "$1" | grep -Eq "$ROWS"; }
median() { sort -g | awk '{ a[NR] = $1 } END { print (NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2) }'; }
field() { sed -n "s/.*\"$1\":\([-0-9.]*\).*/\1/p"; }
div() { awk -v a="$1" -v b="$2" 'BEGIN { print (b > 0 ? a / b : 0) }'; }

# ---- Servers -------------------------------------------------------------------

ready() { # LOG: waits for the word
    for _ in $(seq 100); do
        grep -q ready "$1" 2>/dev/null && return
        sleep 0.05
    done
    echo "run.sh: a server does not start:" >&2
    cat "$1" >&2
    exit 1
}

server() { # LOG ARGS...: starts one, its pid in $server
    local log=$dir/$1
    shift
    : >"$log"
    "$BIN/server" --port-base "$BASE" "$@" >"$log" 2>&1 &
    server=$!
    pids="$pids $server"
    ready "$log"
}

floor() {
    : >"$dir/floor"
    "$BIN/floor" "$FLOOR" >"$dir/floor" 2>&1 &
    floor=$!
    pids="$pids $floor"
    ready "$dir/floor"
}

cluster() { # ARGS...: chat and connector, their pids in $both
    server chat --id chat-1 "$@"
    both=$server
    server connector --id connector-1 "$@"
    front=$server
    both=$front,$both
    sleep 0.5 # the links
}

gone() { # PIDS: ended, and forgotten
    stop "$@"
    for p in "$@"; do pids=$(printf '%s' "$pids" | sed "s/\b$p\b//"); done
}

# ---- Rows ----------------------------------------------------------------------

load() { # OUT ARGS...
    local out=$1
    shift
    "$BIN/loadgen" "$@" >"$dir/line" 2>"$dir/error" || {
        fail "loadgen $*" "$(cat "$dir/line" "$dir/error")"
        return 1
    }
    cat "$dir/line" >>"$out"
}

verdict_row() { # NAME RATIO LIMIT OURS FLOOR
    local line
    line=$(printf '%-44s %8.3f us %8.3f us %6.2f x  (at most %s x)' "$1" "$4" "$5" "$2" "$3")
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$dir/ratios"
    printf '%s\n' "$line" >>"$table"
    if awk -v r="$2" -v l="$3" 'BEGIN { exit !(r <= l) }'; then pass "$line"; else fail "$line"; fi
}

# The same work on our server and on the floor, in turn. FIELD is what counts.
ratio() { # NAME LIMIT PIDS FIELD "OUR ARGS" "FLOOR ARGS"
    wanted "$1" || return
    local ours=$dir/ours base=$dir/base a b
    : >"$ours"
    : >"$base"
    for i in $(seq "$RUNS"); do
        progress "$1: $i of $RUNS"
        # shellcheck disable=SC2086
        load "$ours" $5 --port "$FRONT" --pid "$3" --secs "$SECS" || return
        # shellcheck disable=SC2086
        load "$base" $6 --port "$FLOOR" --pid "$floor" --secs "$SECS" || return
    done
    progress ''
    a=$(field "$4" <"$ours" | median)
    b=$(field "$4" <"$base" | median)
    verdict_row "$1" "$(div "$a" "$b")" "$2" "$a" "$b"
}

same() { # NAME LIMIT PIDS ARGS: both sides do the same
    ratio "$1" "$2" "$3" cpu_us "$4" "$4"
}

plain() { # NAME GOOD(0|1) TEXT
    local line
    line=$(printf '%-44s %s' "$1" "$3")
    printf '%s\n' "$line" >>"$table"
    if [ "$2" -eq 1 ]; then pass "$line"; else fail "$line"; fi
}

at_most() { awk -v a="$1" -v b="$2" 'BEGIN { print (a <= b ? 1 : 0) }'; }

frontend_rows() {
    same 'echo bytes, 1 outstanding' 1.35 "$1" 'echo --raw'
    same 'echo bytes, 16 outstanding' 1.6 "$1" 'echo --raw --window 16'
    same 'echo bytes, 1 KiB, 16 outstanding' 1.3 "$1" 'echo --raw --window 16 --body 1024'
    same 'echo bytes, WebSocket, 16 outstanding' 2.0 "$1" 'echo --raw --window 16 --ws'
    same 'echo JSON, 1 outstanding' 1.6 "$1" 'echo'
    same 'echo JSON, 16 outstanding' 4 "$1" 'echo --window 16'
}

backend_rows() {
    ratio 'forwarded bytes, 16 outstanding' 8 "$both" cpu_us \
        'echo --raw --window 16 --route chat.chatHandler.echoRaw' 'echo --raw --window 16'
    ratio 'forwarded JSON, 16 outstanding' 8 "$both" cpu_us \
        'echo --window 16 --route chat.chatHandler.echo' 'echo --window 16'
    same 'push to 1,000 members, a delivery' 1.3 "$both" 'fanout --conns 1000 --window 4'
}

# p50 of what is forwarded against p50 of what the frontend answers.
latency_row() {
    local name='forwarded: p50 against the frontend'\''s echo' a b
    wanted "$name" || return
    : >"$dir/a"
    : >"$dir/b"
    for i in $(seq "$RUNS"); do
        progress "$name: $i of $RUNS"
        load "$dir/a" echo --raw --port "$FRONT" --secs "$SECS" --route chat.chatHandler.echoRaw || return
        load "$dir/b" echo --raw --port "$FRONT" --secs "$SECS" || return
    done
    progress ''
    a=$(field p50_us <"$dir/a" | median)
    b=$(field p50_us <"$dir/b" | median)
    verdict_row "$name" "$(div "$a" "$b")" 3 "$a" "$b"
}

calls() { # N CONC JSON: one line
    load "$4" call --port "$FRONT" --pid "$both" --route connector.entryHandler.rpcBench \
        --text "{\"n\":$1,\"conc\":$2,\"json\":$3}"
}

rpc_rate() { # NAME CONC WANT
    local rate wrong good
    : >"$dir/calls.$2"
    for i in $(seq "$RUNS"); do
        progress "$1: $i of $RUNS"
        calls 500000 "$2" false "$dir/calls.$2" || return
    done
    progress ''
    rate=$(field cps <"$dir/calls.$2" | median)
    wrong=$(grep -vc '"bad":0.*"bad":0' "$dir/calls.$2")
    good=$(awk -v r="$rate" -v w="$3" -v b="$wrong" 'BEGIN { print ((r >= w && !b) ? 1 : 0) }')
    plain "$1" "$good" "$(printf '%9.0f calls/s (at least %s), every result checked' "$rate" "$3")"
}

# A core that sleeps while it waits is slow to wake on a virtual machine: who
# has cores of his own for two servers says so by pm_loop_opts.spin_us.
spin_rows() {
    wanted rpc || return
    cluster --spin 100
    rpc_rate 'rpc bytes, 64 outstanding, spin_us 100' 64 500000
    rpc_rate 'rpc bytes, 1024 outstanding, spin_us 100' 1024 1000000
    # shellcheck disable=SC2046
    gone $(echo "$both" | tr , ' ')
}

rpc_rows() {
    wanted rpc || return
    rpc_rate 'rpc bytes, 64 outstanding' 64 500000
    rpc_rate 'rpc bytes, 1024 outstanding' 1024 1000000
    : >"$dir/calls.json"
    for i in $(seq "$RUNS"); do calls 200000 64 true "$dir/calls.json" || return; done
    local bytes json
    bytes=$(div "$(field cpu_us <"$dir/calls.64" | median)" 500000)
    json=$(div "$(field cpu_us <"$dir/calls.json" | median)" 200000)
    verdict_row 'rpc: JSON arguments against bytes' "$(div "$json" "$bytes")" 3 "$json" "$bytes"
    : >"$dir/one"
    : >"$dir/ping"
    for i in $(seq "$RUNS"); do
        calls 20000 1 false "$dir/one" || return
        load "$dir/ping" echo --raw --conns 1 --port "$FLOOR" --secs 1 || return
    done
    verdict_row 'rpc: 1 outstanding against a ping-pong' \
        "$(awk -v c="$(field cps <"$dir/one" | median)" -v p="$(field rate <"$dir/ping" | median)" 'BEGIN { print p / c }')" 2.5 \
        "$(awk -v c="$(field cps <"$dir/one" | median)" 'BEGIN { print 1e6 / c }')" \
        "$(awk -v c="$(field rate <"$dir/ping" | median)" 'BEGIN { print 1e6 / c }')"
}

# Fresh servers each time: connecting, and what an idle session costs.
connect_rows() {
    wanted connect || return
    local n a b most
    : >"$dir/ours"
    : >"$dir/base"
    for i in $(seq "$RUNS"); do
        progress "connect and handshake: $i of $RUNS"
        floor
        cluster
        load "$dir/ours" connect --conns 5000 --secs 0.5 --port "$FRONT" --pid "$front" || return
        load "$dir/base" connect --conns 5000 --secs 0.5 --port "$FLOOR" --pid "$floor" || return
        # shellcheck disable=SC2046
        gone "$floor" $(echo "$both" | tr , ' ')
    done
    progress ''
    a=$(field cpu_us <"$dir/ours" | median)
    b=$(field cpu_us <"$dir/base" | median)
    verdict_row 'connect and handshake with dictionary' "$(div "$a" "$b")" 1.5 "$a" "$b"
    most=$(ulimit -Hn)
    for n in 1000 5000 18000; do
        [ "$most" = unlimited ] || [ "$n" -lt $((most - 200)) ] || continue
        : >"$dir/ours"
        for i in $(seq "$RUNS"); do
            progress "bytes of $n idle sessions: $i of $RUNS"
            cluster
            load "$dir/ours" connect --conns "$n" --secs 0.5 --port "$FRONT" --pid "$front" || return
            # shellcheck disable=SC2046
            gone $(echo "$both" | tr , ' ')
        done
        progress ''
        a=$(field bytes <"$dir/ours" | median)
        plain "connect: an idle session of $n" "$(at_most "$a" 700)" "$a bytes (at most 700)"
    done
}

# Does a message cost the same whatever else there is? Both at once, in turn.
constant() { # NAME LIMIT ARGS-OF-FEW ARGS-OF-MANY LOAD
    wanted "$1" || return
    local a b few many
    : >"$dir/few"
    : >"$dir/many"
    for i in $(seq "$RUNS"); do
        progress "$1: $i of $RUNS"
        for which in few many; do
            # shellcheck disable=SC2086
            [ $which = few ] && cluster $3 || cluster $4
            # shellcheck disable=SC2086
            load "$dir/$which" $5 --port "$FRONT" --pid "$both" --secs "$SECS"
            # shellcheck disable=SC2046
            gone $(echo "$both" | tr , ' ')
        done
    done
    progress ''
    few=$(field cpu_us <"$dir/few" | median)
    many=$(field cpu_us <"$dir/many" | median)
    verdict_row "$1" "$(div "$many" "$few")" "$2" "$many" "$few"
}

# The ratio to the floor at many connections against that at 100.
scale_rows() {
    wanted scale || return
    local most base r n
    most=$(ulimit -Hn)
    floor
    cluster
    for n in 100 1000 10000 18000; do
        [ "$most" = unlimited ] || [ "$n" -lt $((most - 200)) ] || continue
        : >"$dir/ours"
        : >"$dir/base"
        for i in $(seq "$RUNS"); do
            progress "scale: $n connections, $i of $RUNS"
            load "$dir/ours" echo --raw --conns "$n" --port "$FRONT" --pid "$front" --secs "$SECS" || return
            load "$dir/base" echo --raw --conns "$n" --port "$FLOOR" --pid "$floor" --secs "$SECS" || return
        done
        progress ''
        r=$(div "$(field cpu_us <"$dir/ours" | median)" "$(field cpu_us <"$dir/base" | median)")
        [ "$n" = 100 ] && base=$r && say "$(printf '%-44s %6.2f x the floor' 'scale: 100 connections' "$r")" && continue
        verdict_row "scale: $n connections against 100" "$(div "$r" "$base")" 1.25 "$r" "$base"
    done
    # shellcheck disable=SC2046
    gone "$floor" $(echo "$both" | tr , ' ')
}

idle_row() {
    wanted idle || return
    local kb chat=$BUILD/examples/chat/chat
    if [ -x "$chat" ]; then
        "$chat" --port-base "$BASE" --web-port 0 >"$dir/idle" 2>&1 &
        pids="$pids $!"
        idle=$!
        sleep 1.5
    else
        server idle
        idle=$server
        sleep 1
    fi
    kb=$(awk '/^VmRSS/ { print $2 }' "/proc/$idle/status" 2>/dev/null)
    gone "$idle"
    plain 'idle: the chat cluster in one process' "$(at_most "${kb:-99999}" 8192)" "${kb:-no} kB resident (at most 8192)"
}

malloc_row() {
    wanted malloc || return
    progress 'malloc under load'
    if "$BIN/nomalloc" "$(awk -v s="$SECS" -v r="$RUNS" 'BEGIN { print int(s * r) + 1 }')" >"$dir/nomalloc" 2>&1; then
        progress ''
        plain 'malloc under full load' 1 "$(tail -n 1 "$dir/nomalloc")"
    else
        progress ''
        plain 'malloc under full load' 0 "$(tail -n 1 "$dir/nomalloc")"
    fi
}

# ---- All -----------------------------------------------------------------------

say "make bench: medians of $RUNS runs of $SECS s. $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(getconf _NPROCESSORS_ONLN) cores, $(uname -sr)"
say "$(printf '%-44s %11s %11s %8s' 'CPU of the servers, per unit' ours floor ratio)"

if wanted 'echo|forwarded|push|rpc'; then
    floor
    cluster
    frontend_rows "$front"
    backend_rows
    latency_row
    rpc_rows
    # shellcheck disable=SC2046
    gone "$floor" $(echo "$both" | tr , ' ')
    spin_rows
fi
connect_rows
scale_rows
constant 'handlers: 10,000 against 10' 1.1 '--handlers 10' '--handlers 10000 --limit client_queue_bytes=16777216' 'echo --raw --window 16'
constant 'channels: 100,000 against 10' 1.1 '--channels 10' '--channels 100000' 'fanout --conns 200 --window 4'
idle_row
malloc_row
if wanted codec; then
    say ''
    say 'Codecs and whole requests without a socket, a message; instructions from test/bench/counts.txt'
    for program in codec counted; do
        "$BIN/$program" | while IFS= read -r line; do
            name=$(printf '%s' "$line" | sed 's/  .*//')
            count=$(awk -F '\t' -v n="$name" '$2 == n { print $3 }' test/bench/counts.txt)
            say "$(printf '%s %8s instructions' "$line" "${count:--}")"
        done
    done
fi
[ -z "${BENCH_POMELO:-}" ] || . test/bench/pomelo/run.sh
awk -f test/bench/svg.awk "$dir/ratios" >"$BUILD/bench.svg"
say "$BUILD/bench.svg shows the ratios."
total
