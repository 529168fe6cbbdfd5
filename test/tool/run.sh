#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh -- the `pomelo` command as somebody uses it who has just installed the
# library: init, make, start, list, kill -9, add, restart, stop, the last three
# and a dead master while users talk; a master's heir, and a server that hangs.
# Installs into a folder of its own, uses free ports of the loopback, and ends
# only what it has started. One line a test; the last one is "N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
CC=${CC:-cc}
tree=$PWD
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES POMELO_CFLAGS POMELO_LIBS NO_COLOR
work=$(mktemp -d) || exit 1
prefix=$work/prefix
project=$work/Hello
PIDS= # every process of the cluster that was ever listed

# Only processes that we know by number, and that run our own binary.
finish() {
    for p in $PIDS; do
        case $(readlink "/proc/$p/exe") in "$work"/*) kill -9 "$p" ;; esac
    done 2>/dev/null
    rm -rf "$work"
    [ -z "$claim" ] || rmdir "$claim"
}
trap finish EXIT
trap 'exit 1' INT TERM

now_ms() { date +%s%3N; }

# wait_for SECONDS COMMAND...: until it says yes
wait_for() {
    local end=$(($(now_ms) + $1 * 1000))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(now_ms)" -lt "$end" ] || return 1
        sleep 0.05
    done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ports of the project, counted from its base.
OFFSETS='1 5 14 50 51 150 151 250 260 270 271 272'
# Claimed by a folder, so that two runs at a time do not find the same ones.
claim=
free_base() {
    local i offset
    base=$((12000 + $$ % 60 * 300))
    for i in $(seq 60); do
        claim=${TMPDIR:-/tmp}/pomelo-tool-ports-$base
        if mkdir "$claim" 2>/dev/null; then
            for offset in $OFFSETS; do
                listens $((base + offset)) && break
            done || return 0
            rmdir "$claim"
        fi
        base=$((base + 300))
        [ "$base" -lt 30000 ] || base=12000
    done
    claim=
    fail 'there are free ports'
    total
    exit 1
}

# ---- Questions about the cluster ------------------------------------------

list() { pomelo list --json 2>/dev/null; }
# One server of the list as a line of JSON; fails when it is not there.
server() { list | grep -o "{[^{}]*\"serverId\":\"$1\"[^{}]*}"; }
pid_of() { server "$1" | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'; }
count() { list | grep -o '"serverId"' | wc -l; }
has_count() { [ "$(count)" -eq "$1" ]; }
remember() {
    PIDS="$PIDS $(list | grep -o '"pid":[0-9]*' | tr -dc '0-9\n' | tr '\n' ' ')"
}
gone() { ! kill -0 "$1" 2>/dev/null; }
all_gone() { local p; for p in $PIDS; do gone "$p" || return 1; done; }
no_port() { local o; for o in $OFFSETS; do ! listens $((base + o)) || return 1; done; }
is_new() { local p; p=$(pid_of "$1"); [ -n "$p" ] && [ "$p" != "$2" ]; }
says() { [ "$("${@:2}" >/dev/null 2>&1; echo $?)" -eq "$1" ]; }
talk() { "$work/talk" $((base + 14)) "$@"; }

# Users who talk without a pause, in the background, for so many seconds.
load_begin() {
    "$work/load" $((base + 14)) 16 "$1" >"$work/load.out" 2>&1 &
    load=$!
    wait_for 10 grep -q ready "$work/load.out"
}
load_ends() {
    wait "$load"
    figure=$(tail -n 1 "$work/load.out")
}
# Says what it was when something has failed or was not answered.
all_well() {
    case $figure in
    *', failed 0, unanswered 0,'*) ;;
    *) cat "$work/load.out" ;;
    esac
}
# Bytes that a stranger says on the master's port, in printf's form. What it
# hears must not tell anything of a server.
stranger() {
    { exec 4<>"/dev/tcp/127.0.0.1/$((base + 5))"; } 2>/dev/null || return 1
    # shellcheck disable=SC2059
    printf "$1" >&4 2>/dev/null
    timeout 1 cat <&4 2>/dev/null | grep -a -q 'chat-server\|"code":1'
    local heard=$?
    exec 4<&- 4>&-
    [ "$heard" -ne 0 ]
}
# A PUBLISH on a topic, behind a CONNECT.
publish() { # TOPIC TEXT
    local size=$((2 + ${#1} + ${#2}))
    printf '\\x10\\x10\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x04evil'
    printf '\\x30\\x%02x\\x%02x\\x00\\x%02x%s%s' $((size % 128 + 128)) $((size / 128)) \
        ${#1} "$1" "${2//%/%%}"
}

# ---- The project ----------------------------------------------------------

"$MAKE" -s BUILD="$BUILD" CC="$CC" all "$BUILD/tools/pomelo" >"$work/make.log" 2>&1
try 'make install' "$MAKE" -s BUILD="$BUILD" CC="$CC" install PREFIX="$prefix"
export PATH="$prefix/bin:$PATH" PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
if ! command -v pomelo | grep -q "^$prefix"; then
    fail 'pomelo is installed' "$(cat "$work/make.log")"
    total
    exit 1
fi
free_base
cd "$work" || exit 1

init() { pomelo init --port-base "$base" Hello >"$work/init.log"; }
try 'init makes a project' init
verdict 'init tells each file' "$(grep -c '^   create : Hello/' init.log |
    awk '$1 < 15 { print "only " $1 }')"
try 'a folder that is not empty is refused' says 1 pomelo init Hello
try '... unless it is forced' pomelo init --force --port-base "$base" Hello
try 'a name that is none is refused' says 1 pomelo init 'no name'
cd "$project" || exit 1

core=$(($(getconf _NPROCESSORS_ONLN) - 1))
sed -i "s|\"id\": \"chat-server-1\",|& \"cpu\": $core, \"args\": [\"--env\", \"a b\", \"{\\\\\"x\\\\\":1}\", \"\"],|" \
    config/servers.json
sed -i 's/"port": \([0-9]*\)/"port": "\1"/' config/master.json
quiet_make() { out=$("$MAKE" -s CC="$CC" CFLAGS='-O2 -Werror' 2>&1) && [ -z "$out" ]; }
try 'make, without a warning' quiet_make
try 'make test' "$MAKE" -s CC="$CC" test
# shellcheck disable=SC2046
try 'the test user builds' "$CC" -std=c11 -D_GNU_SOURCE -o "$work/talk" \
    "$tree/test/tool/talk.c" $(pkg-config --cflags --libs pomelo libcjson) \
    "-Wl,-rpath,$prefix/lib"
# shellcheck disable=SC2046
try 'and the many' "$CC" -std=c11 -D_GNU_SOURCE -o "$work/load" \
    "$tree/test/tool/load.c" $(pkg-config --cflags --libs pomelo libcjson) \
    "-Wl,-rpath,$prefix/lib"

# ---- start, list ----------------------------------------------------------

try 'without a cluster list says so' says 3 pomelo list
began=$(now_ms)
try 'start --daemon' pomelo start --daemon
took=$(($(now_ms) - began))
verdict 'start --daemon returns within a second' \
    "$([ "$took" -lt 1000 ] || echo "$took ms")"
try 'list shows every server within 5 s' wait_for 5 has_count 5
remember
master=$(pid_of master-server-1)
verdict 'its parent is gone' "$(awk '$1 == "PPid:" && $2 == '$$' { print }' \
    "/proc/$master/status" 2>&1)"
verdict 'list tells id, type, pid, memory, uptime, connections' "$(
    for id in gate-server-1 connector-server-1 connector-server-2 chat-server-1 master-server-1; do
        for key in serverId serverType pid rss uptime connections; do
            [ "$id.$key" = master-server-1.connections ] ||
                server "$id" | grep -q "\"$key\":[\"0-9]" || echo "$id: no $key"
        done
    done)"
pomelo list >"$work/table"
verdict 'its table is aligned and has no colours' "$(
    LC_ALL=C grep -n "$(printf '\033')" "$work/table"
    awk 'NR == 1 { at = index($0, "pid") + 3 } NR > 1 && substr($0, at - 1, 1) !~ /[0-9]/ { print }' \
        "$work/table"
    [ "$(wc -l <"$work/table")" -eq 6 ] || cat "$work/table")"
try 'a second start is refused' says 1 pomelo start --daemon
try 'a wrong password is refused' says 4 pomelo list -p wrong
try 'a watching user may list' pomelo list -u monitor
try '... but not stop' says 1 pomelo stop -u monitor chat-server-1
try 'users talk' talk one 5
help_of() { for c in $(pomelo --help | awk '/^  [a-zA-Z]+ / { print $1 }'); do
    [ "$c" = pomelo ] || pomelo "$c" --help | grep -q "^usage: pomelo $c " || echo "$c"; done; }
verdict 'each command has its help' "$(help_of)"
try 'crons can be seen' pomelo crons
verdict '... and a wrong one is explained' "$(pomelo addCron serverType=chat id=1 action=a.b \
    'time=0 0 25 * * *' 2>&1 | head -n 1 | grep -v 'hour: expected a number from 0 to 24.*found "25"')"
try '... a right one is added' pomelo addCron serverType=chat id=1 action=roomCron.report 'time=* * * * * *'
verdict '... it runs, and its next time is shown' "$(
    wait_for 3 grep -q 'chat-server-1: cron 1$' logs/pomelo.log || tail -n 3 logs/pomelo.log
    pomelo crons | grep -q "^chat-server-1 *1 *20[0-9-]* [0-9:]* *roomCron.report" || pomelo crons)"
add_cron() { pomelo addCron serverType=chat "$@" 'time=* * * * * *'; }
verdict '... a second time it is refused' "$(add_cron id=1 action=roomCron.report 2>&1 |
    head -n 1 | grep -v 'chat-server-1: expected an id that no other cron has')"
verdict '... as is one without its job' "$(add_cron id=2 action=no.job 2>&1 |
    head -n 1 | grep -v 'chat-server-1: no job "chat.no.job" is registered')"
id=$(printf 'a long name of a cron\033[1m')
pomelo addCron serverType=chat "id=$id" action=roomCron.report 'time=0 0 4 * * *' >/dev/null
pomelo crons >"$work/table"
verdict '... their table is aligned, whatever they are called' "$(
    LC_ALL=C grep -n "$(printf '\033')" "$work/table"
    awk 'NR == 1 { at = index($0, "action") } NR > 1 && index($0, "roomCron") != at { print }' "$work/table"
    [ "$(wc -l <"$work/table")" -eq 4 ] || cat "$work/table")"
pomelo removeCron serverType=chat "id=$id" >/dev/null
try '... and taken away' pomelo removeCron serverType=chat id=1
try '... but not again' says 1 pomelo removeCron serverType=chat id=1
monitor() { pomelo monitor --count 2 --interval 1 | grep -c chat-server-1 | grep -qx 2; }
try 'monitor shows the table again and again' monitor

chat=$(pid_of chat-server-1)
taskset_is() { taskset -cp "$1" | grep -q ": $core\$"; }
if command -v taskset >/dev/null; then
    try 'taskset shows the core that cpu gives' taskset_is "$chat"
fi
verdict 'args arrive verbatim' "$(tr '\0' '\n' <"/proc/$chat/cmdline" | tail -n +2 |
    diff - <(printf '%s\n' --env 'a b' '{"x":1}' '' --env development --id chat-server-1))"

# ---- The page -------------------------------------------------------------

modules=$tree/$BUILD/browser/node_modules
[ "${BUILD#/}" = "$BUILD" ] || modules=$BUILD/browser/node_modules
if ! command -v node >/dev/null || [ ! -d "$modules/playwright-core" ]; then
    echo '  skip  the page: no node, or test/browser/run.sh has never run'
elif ! command -v chromium chromium-browser google-chrome >/dev/null; then
    echo '  skip  the page: there is no chromium'
else
    page() {
        (cd "$tree" && NODE_PATH=$modules timeout -k 5 120 node test/tool/page.js \
            "http://localhost:$((base + 1))/")
    }
    out=$(page 2>&1)
    status=$?
    printf '%s\n' "$out" | sed '$d'
    add_total page "$(printf '%s\n' "$out" | tail -n 1)" "$status"
fi

# ---- A server dies --------------------------------------------------------

# Every process whose log, emptied before, does not tell that the chat server
# is away.
unaware() {
    local id
    for id in connector-server-1 connector-server-2 gate-server-1 master-server-1; do
        grep -q "chat-server-1.*\(down\|gone\|lost\|left\|removed\)" "logs/$id.log" ||
            echo "$id"
    done
}
knows() { [ -z "$(unaware)" ]; }
for log in logs/*.log; do : >"$log"; done
kill -9 "$chat"
began=$(now_ms)
wait_for 3 knows
verdict 'kill -9: all others know within 3 s' "$(unaware)"
try '... and it is back within 5 s' wait_for 5 is_new chat-server-1 "$chat"
took=$(($(now_ms) - began))
verdict '... from the kill' "$([ "$took" -lt 5000 ] || echo "$took ms")"
try '... and used again' talk two 5
remember

# ---- add, restart, stop one -----------------------------------------------

try 'add' pomelo add id=chat-server-9 serverType=chat host=127.0.0.1 port=$((base + 260))
try '... and it is there' wait_for 5 server chat-server-9
try 'add, of a port that is taken' says 1 pomelo add id=x serverType=chat \
    host=127.0.0.1 port=$((base + 260))
try 'add, of nonsense' says 2 pomelo add nonsense
verdict 'add, of a wrong port, tells why' "$(pomelo add id=x serverType=chat port=99999 2>&1 |
    grep -v 'port: expected a number from 1 to 65535.*found 99999')"
try 'add with clusterCount and ++' pomelo add clusterCount=2 serverType=chat \
    host=127.0.0.1 port=$((base + 270))++
try '... and once more' pomelo add clusterCount=1 serverType=chat \
    host=127.0.0.1 port=$((base + 272))
try '... and all are there' wait_for 5 has_count 9
remember
old=$(pid_of chat-server-9)
verdict 'restart' "$(pomelo restart nobody chat-server-9 2>&1 |
    diff - <(echo 'pomelo: nobody has not been restarted'))"
try '... and it is another process' wait_for 5 is_new chat-server-9 "$old"
try '... the old one is gone' wait_for 3 gone "$old"
remember
old=$(pid_of chat-server-9)
try 'stop of one' pomelo stop chat-server-9
verdict '... and it is gone' "$(gone "$old" || echo "pid $old lives")"
try 'stop of nobody' says 1 pomelo stop nobody
chat=$(pid_of chat-server-1)

# ---- Stop and restart under load ------------------------------------------

try 'add of who was stopped' pomelo add id=chat-server-9 serverType=chat host=127.0.0.1 \
    port=$((base + 260))
try '... and it is there' wait_for 5 server chat-server-9
remember
load_begin 6
try 'under load: restart of a backend' pomelo restart --id chat-server-9
remember
try '... stop of a backend' pomelo stop chat-server-9
load_ends
verdict '... no request fails' "$(all_well)"
echo "        $figure"

# ---- The master dies ------------------------------------------------------

load_begin 9
kill -9 "$master"
dead=$(now_ms)
try 'without the master users talk' talk three 5
try '... list says that it is away' says 3 pomelo list
sleep "$(echo $((5000 - $(now_ms) + dead)) | awk '{ print ($1 > 0 ? $1 : 0) / 1000 }')"
try '... 5 s later it is started again' pomelo start --daemon
try '... its list is whole within 5 s' wait_for 5 has_count 8
verdict '... with the same processes' "$([ "$(pid_of chat-server-1)" = "$chat" ] ||
    echo "chat-server-1 was $chat, is $(pid_of chat-server-1)")"
remember
load_ends
verdict '... and no request has failed' "$(all_well)"
echo "        $figure"

# ---- Strangers on the master's port ---------------------------------------

who='"id":"evil","type":"monitor","serverType":"chat","pid":1,"info":{"id":"evil","serverType":"chat","host":"127.0.0.1","port":1}'
try 'a stranger without a token gets nothing' stranger "$(publish register "{$who}")"
try '... with a wrong one' stranger "$(publish register "{$who,\"token\":\"bad\"}")"
try '... who comes back without one' stranger "$(publish reconnect "{$who}")"
try '... with broken JSON' stranger "$(publish register '{"id":')"
try '... who announces 100 MB' stranger '\x30\x80\xc2\xd7\x2f\x00\x08register'
verdict '... and harms nobody' "$(has_count 8 || list)$(server evil)"

# ---- stop -----------------------------------------------------------------

for log in logs/*.log; do : >"$log"; done
load_begin 4
try 'stop, under load' pomelo stop
load_ends
verdict '... all that was accepted is answered' "$(
    for id in gate-server-1 connector-server-1 connector-server-2 chat-server-1; do
        grep -q "$id has stopped: success" "logs/$id.log" || echo "$id: $(tail -n 2 "logs/$id.log")"
    done)"
echo "        $figure (failed: refused while it stopped)"
verdict '... leaves no process' "$(for p in $PIDS; do gone "$p" || ps -o args= -p "$p"; done)"
verdict '... and no port' "$(for o in $OFFSETS; do ! listens $((base + o)) || echo $((base + o)); done)"

pomelo start >"$work/foreground" 2>&1 &
front=$!
try 'start in the foreground' wait_for 8 has_count 5
remember
kill -INT "$front"
wait "$front"
status=$?
verdict 'Ctrl-C: it ends well' "$([ "$status" -eq 0 ] ||
    { echo "status $status"; tail -n 5 "$work/foreground"; })"
verdict '... and all with it' "$(all_gone || echo "of: $PIDS")"
verdict '... leaving no port' "$(no_port || echo 'one listens')"

pomelo start --daemon >/dev/null
pomelo stop >/dev/null 2>&1
status=$?
verdict 'stop, when the servers are just about to come' \
    "$([ "$status" -eq 0 ] || echo "status $status"; sleep 1; no_port || echo 'a port is left')"
pomelo start --daemon >/dev/null
wait_for 5 has_count 5
remember
try 'kill' pomelo kill
verdict '... leaves nobody' "$(all_gone || echo "of: $PIDS")"

# ---- The next master's servers, and one that hangs ------------------------

# A cluster whose servers are not their master's children.
adopt() {
    pomelo start --daemon >/dev/null
    wait_for 5 has_count 5
    remember
    kill -9 "$(pid_of master-server-1)"
    pomelo start --daemon >/dev/null
    wait_for 5 has_count 5
    remember
}
adopt
kill -TERM "$(pid_of master-server-1)"
try 'a signal to the next master stops those that the first one has started' \
    wait_for 8 all_gone
verdict '... leaving no port' "$(no_port || echo 'one listens')"
adopt
chat=$(pid_of chat-server-1)
kill -STOP "$chat"
began=$(now_ms)
verdict 'one that hangs is listed' "$(pomelo list | grep -q "^chat-server-1 .* $chat  *-  *-  *-" ||
    pomelo list)"
took=$(($(now_ms) - began))
verdict '... within 3 s' "$([ "$took" -lt 3000 ] || echo "$took ms")"
try '... and stop ends it too' pomelo stop
verdict '... leaving nobody' "$(all_gone || echo "of: $PIDS")"
verdict '... and no port' "$(no_port || echo 'one listens')"

# ---- Without a master; from another folder --------------------------------

cd "$work" || exit 1
pomelo start --directory Hello --type connector >/dev/null 2>&1 &
front=$!
both_listen() { listens $((base + 50)) && listens $((base + 51)); }
try 'start of a type, without a master' wait_for 5 both_listen
verdict '... starts nobody else' "$(! listens $((base + 14)) || echo 'the gate runs')"
kill -TERM "$front"
wait "$front"
verdict '... and all stop with it' "$(no_port || echo 'one listens')"
: >Hello/logs/connector-server-2.log
setsid pomelo start -d Hello -i connector-server-2 >/dev/null 2>&1 &
front=$!
wait_for 5 listens $((base + 51))
try 'start of a type in the background, where one can not start' says 1 \
    pomelo start -d Hello -t connector -D
verdict '... leaves none of them' "$(! listens $((base + 50)) || echo 'one runs')"
kill -INT -- "-$front"
wait "$front"
status=$?
verdict 'Ctrl-C on a server without a master: it drains' "$(
    [ "$status" -eq 0 ] || echo "status $status"
    grep -q 'connector-server-2 has stopped: success' Hello/logs/connector-server-2.log ||
        tail -n 3 Hello/logs/connector-server-2.log)"
gate=$(pomelo start -d Hello -i gate-server-1 -D --json 9<Hello/config/crons.json |
    sed -n 's/.*"pid":\([0-9]*\).*/\1/p')
PIDS="$PIDS $gate"
try 'start --id --daemon tells the pid' kill -0 "${gate:-0}"
verdict '... it has nothing open of who started it' \
    "$(readlink "/proc/$gate"/fd/* | grep crons.json)"
try '... and it listens' wait_for 5 listens $((base + 14))
try 'start of nobody' says 1 pomelo start -d Hello -i nobody
wrong() { # FILE SED SENTENCE COMMAND...
    local out
    cp "Hello/config/$1" right.json
    sed -i "$2" "Hello/config/$1"
    out=$(pomelo "${@:4}" -d Hello 2>&1)
    cp right.json "Hello/config/$1"
    case $out in *"$1: $3: expected "*) ;; *) echo "$out" ;; esac
}
verdict 'start, with a wrong cron, tells file, key and what was expected' "$(
    wrong crons.json 's/"0 0 /"0 60 /' 'chat[0].time: minute' start -D)"
verdict '... with a wrong schema, too' "$(
    wrong serverProtos.json 's/required string msg/requird string msg/' \
        'onChat.requird string msg' start -D)"
verdict '... and list, with a wrong port' "$(
    wrong master.json 's/"port": "/&x/' port list)"
try 'start, where no project is' says 1 pomelo start -d "$prefix"
[ -z "$gate" ] || kill -TERM "$gate"
try '... and it stops' wait_for 5 all_gone
cd "$project" || exit 1

if [ "$FAILED" -gt 0 ]; then
    mkdir -p "$tree/$BUILD/tool"
    cp -r logs "$tree/$BUILD/tool/" 2>/dev/null
fi
total
