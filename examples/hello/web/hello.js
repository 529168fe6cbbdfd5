/* SPDX-License-Identifier: MIT */
/* hello.js -- the hello page: one button, one request, every byte shown.
 *
 * The game server is looked for at port 3010 of the host that served this
 * page; `?port=` in the address names another, `&secure=1` asks for wss. The
 * page connects when it is opened and again, with growing pauses, when the
 * connection is lost.
 * Start reading at test() and onWire(). */
(function () {
'use strict';

const ROUTE = 'connector.entryHandler.entry';
const HOST = location.hostname || '127.0.0.1';
const QUERY = new URLSearchParams(location.search);
const PORT = Number(QUERY.get('port')) || 3010;
const SECURE = QUERY.has('secure') || undefined;
const PINGS_MAX = 60;
const ROWS_MAX = 300;
const REPEAT_MS = 500;
const RETRY_MS_MAX = 5000;
const FLIGHT_MS = 450;
const CROWD_MS = 2000;
const CALM = matchMedia('(prefers-reduced-motion: reduce)');

const $ = (id) => document.getElementById(id);
const client = new Pomelo();
const pings = [];
const landing = { in: 0, out: 0 };
let answers = 0;
let beats = 0;
let retryMs = 500;
let retryTimer = 0;
let repeatTimer = 0;
let connecting = null;

function make(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
}

function milliseconds(ms) {
    return ms < 10 ? ms.toFixed(1) + ' ms' : Math.round(ms) + ' ms';
}

/* ---- The connection ---------------------------------------------------- */

function showState(state, text) {
    $('state').dataset.state = state;
    $('state-text').textContent = text;
    $('state').title = text;
}

/* One attempt at a time; whoever asks meanwhile shares it. */
function connect() {
    clearTimeout(retryTimer);
    if (!connecting) {
        showState('connecting', 'connecting to port ' + PORT);
        connecting = client.init(
            { host: HOST, port: PORT, secure: SECURE }).then(() => {
            connecting = null;
            retryMs = 500;
            showState('working', 'connected :' + PORT);
            note('connected to ' + client.url);
        }, (error) => {
            connecting = null;
            retryLater();
            throw error;
        });
    }
    return connecting;
}

function retryLater() {
    showState('closed', 'no game server at port ' + PORT + ', trying again');
    clearTimeout(retryTimer);
    retryTimer = setTimeout(() => connect().catch(() => {}), retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
}

client.on('disconnect', (event) => {
    note('connection lost: ' + event.reason);
    retryLater();
});
client.on('io-error', (error) => note(error.message));
client.on('heartbeat', (ms) => {
    $('beats').textContent = ++beats;
    if (ms !== undefined) {
        addPing(ms);
    }
});

/* ---- The button -------------------------------------------------------- */

function showAnswer(kind, text, ms) {
    $('answer').dataset.kind = kind;
    $('result').textContent = text;
    $('rtt').textContent = ms === undefined ? '\u2013' : milliseconds(ms);
}

async function test() {
    try {
        if (client.state !== 'working') {
            await connect();
        }
        const start = performance.now();
        const answer = await client.request(ROUTE, {});
        const ms = performance.now() - start;
        showAnswer(answer.code === 200 ? 'ok' : 'bad',
            answer.msg || 'the server answered code ' + answer.code, ms);
        $('answers').textContent = ++answers;
        addPing(ms);
        turnSlice();
    } catch (error) {
        showAnswer('bad', error.message);
    }
}

function turnSlice() {
    $('slice').style.transform = 'rotate(' + answers * 45 + 'deg)';
}

/* The next one is sent after the answer, so a slow server is not flooded. */
function repeat() {
    clearTimeout(repeatTimer);
    if ($('repeat').checked) {
        test().then(() => {
            repeatTimer = setTimeout(repeat, REPEAT_MS);
        });
    }
}

/* ---- The figures ------------------------------------------------------- */

function addPing(ms) {
    pings.push(ms);
    if (pings.length > PINGS_MAX) {
        pings.shift();
    }
    const sorted = pings.slice().sort((a, b) => a - b);
    $('best').textContent = milliseconds(sorted[0]);
    $('median').textContent = milliseconds(sorted[sorted.length >> 1]);
    drawSpark(sorted[sorted.length - 1]);
}

function drawSpark(top) {
    const width = 300;
    const height = 56;
    const ceiling = Math.max(top, 1);
    const step = width / Math.max(PINGS_MAX / 2, pings.length - 1);
    const left = width - step * (pings.length - 1);
    const y = (ms) => height - 3 - ms / ceiling * (height - 8);
    const points = pings.map((ms, i) =>
        (left + i * step).toFixed(1) + ' ' + y(ms).toFixed(1));
    $('spark-line').setAttribute('d', 'M' + points.join('L'));
    $('spark-area').setAttribute('d', 'M' + left.toFixed(1) + ' ' + height +
        'L' + points.join('L') + 'L' + width + ' ' + height + 'Z');
    $('spark-dot').hidden = false;
    $('spark-dot').style.left = '100%';
    $('spark-dot').style.top = y(pings[pings.length - 1]) + 'px';
    $('spark-count').textContent = pings.length;
    $('spark-top').textContent = 'slowest ' + milliseconds(top);
}

/* ---- The lane ---------------------------------------------------------- */

/* The flight is slowed down to be seen; the figures are the truth. A dot
 * leaves when the one before it has come from the other side, so an answer is
 * seen to follow its question; in a crowd it leaves at once. */
function fly(event) {
    if (CALM.matches || document.hidden) {
        return;
    }
    const now = performance.now();
    const wait = landing[event.dir === 'out' ? 'in' : 'out'] - now;
    const delay = wait > 0 && wait < CROWD_MS ? wait : 0;
    landing[event.dir] = now + delay + FLIGHT_MS;
    const dot = make('i', '', '');
    dot.dataset.dir = event.dir;
    dot.dataset.name = event.name;
    $('track').append(dot);
    const path = [{ left: '0%', opacity: 1 }, { left: '100%', opacity: 1 }];
    dot.animate(event.dir === 'out' ? path : path.reverse(), {
        duration: FLIGHT_MS,
        delay: delay,
        easing: 'cubic-bezier(.45, .05, .35, 1)'
    }).finished.then(() => dot.remove(), () => dot.remove());
}

/* ---- The log ----------------------------------------------------------- */

function clock() {
    const now = new Date();
    const two = (n) => String(n).padStart(2, '0');
    return two(now.getHours()) + ':' + two(now.getMinutes()) + ':' +
        two(now.getSeconds()) + '.' +
        String(now.getMilliseconds()).padStart(3, '0');
}

function addRow(row) {
    const log = $('log');
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
    log.append(row);
    while (log.childElementCount > ROWS_MAX) {
        log.firstElementChild.remove();
    }
    if (atEnd) {
        log.scrollTop = log.scrollHeight;
    }
}

function note(text) {
    const row = make('div', 'note', '');
    row.append(make('time', '', clock()), make('span', '', '\u00b7'),
        make('span', '', 'socket'), make('span', 'text', text));
    addRow(row);
}

function describe(event) {
    const head = event.id ? '#' + event.id + ' ' : '';
    const route = event.route && event.name !== 'response' ?
        event.route + ' ' : '';
    const body = event.msg === undefined ? '' : JSON.stringify(event.msg);
    return head + route + body;
}

/* A row is built whole when it is opened: most never are. */
function onWire(event) {
    const row = make('details', '', '');
    const line = make('summary', '', '');
    row.dataset.dir = event.dir;
    row.dataset.name = event.name;
    line.append(make('time', '', clock()),
        make('span', 'dir', event.dir === 'out' ? '\u2192' : '\u2190'),
        make('span', 'name', event.name),
        make('span', 'text', describe(event)),
        make('span', 'size', event.bytes.length + ' B'));
    row.append(line);
    row.addEventListener('toggle', () => {
        if (row.childElementCount === 1) {
            row.append(open(event));
        }
    });
    addRow(row);
    fly(event);
}

function open(event) {
    const box = make('div', 'open', '');
    const hex = make('div', 'hex', '');
    let at = 0;
    for (const part of partsOf(event.bytes)) {
        const bytes = Array.from(event.bytes.subarray(at, at + part.length));
        const text = bytes.map((b) => b.toString(16).padStart(2, '0'));
        const piece = make('b', 'p-' + part.name, text.join(' '));
        piece.title = part.name;
        hex.append(piece, ' ');
        at += part.length;
    }
    box.append(hex);
    if (event.msg !== undefined) {
        box.append(make('pre', 'json', JSON.stringify(event.msg, null, 2)));
    }
    return box;
}

/* Cuts a package where its meaning changes, to colour it. */
function partsOf(bytes) {
    const parts = [{ name: 'head', length: 1 }, { name: 'length', length: 3 }];
    const add = (name, length) => {
        parts.push({ name: name, length: length });
        at += length;
    };
    let at = 4;
    if (bytes[0] === 4) {
        const flag = bytes[at];
        const type = flag >> 1;
        add('flag', 1);
        if (type === 0 || type === 2) {
            let end = at;
            while (bytes[end] & 128) {
                end++;
            }
            add('id', end + 1 - at);
        }
        if (type !== 2) {
            add('route', flag & 1 ? 2 : bytes[at] + 1);
        }
    }
    add('body', bytes.length - at);
    return parts;
}

client.on('wire', onWire);
$('test').addEventListener('click', test);
$('repeat').addEventListener('change', repeat);
$('clear').addEventListener('click', () => $('log').replaceChildren());
$('show-beats').addEventListener('change', (event) =>
    $('log').classList.toggle('no-beats', !event.target.checked));
$('lane-server').textContent = 'C process :' + PORT;
connect().catch(() => {});
}());
