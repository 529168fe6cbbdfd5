// SPDX-License-Identifier: MIT
// differential.js -- what Pomelo's own packages make of an input, and what we
// make of it: bytes and values must be the same.
//
//   node differential.js --codec CMD [--rounds N] [--seed N]
//
// The inputs are made anew from the seed: packages, messages, schemas with
// messages that fit them, JSON texts (right and spoilt), bytes that may be
// UTF-8. Each goes to pomelo-protocol, pomelo-protobuf or Node itself, and as
// one request to test/conformance/codec. One line an operation, the last one is
// "N passed, N failed"; a difference is told with the request that shows it.
'use strict';
const { spawn } = require('child_process');
const Protocol = require('pomelo-protocol');
const protobuf = require('pomelo-protobuf');
console.warn = () => {}; // the packages' own complaints

const opt = { codec: null, rounds: 300, seed: 1 };
for (let i = 2; i < process.argv.length; i += 2) {
  const name = process.argv[i].replace(/^--/, '');
  if (!(name in opt) || i + 1 >= process.argv.length) {
    console.error('usage: differential.js --codec CMD [--rounds N] [--seed N]');
    process.exit(2);
  }
  opt[name] = name === 'codec' ? process.argv[i + 1] : Number(process.argv[i + 1]);
}

/* ---- Chance ------------------------------------------------------------- */
let state = opt.seed >>> 0;
function random() { // mulberry32
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const below = (n) => Math.floor(random() * n);
const one = (list) => list[below(list.length)];
const times = (n, make) => Array.from({ length: n }, make);
const bytes = (n) => Buffer.from(times(n, () => below(256)));
const hex = (b) => Buffer.from(b || '').toString('hex');

const letters = ['a', 'Z', '0', ' ', '"', '\\', '/', '\n', '\u0001', '\u007f', '\u0080',
  '\u00e9', '\u07ff', '\u0800', '\u4e2d', '\u2028', '\uffff', '\u{10000}', '\u{1f600}', '\u{10ffff}'];
const text = (n) => times(below(n), () => one(letters)).join('');
const lonely = (n) => times(below(n), () => one([...letters, '\ud800', '\udc00'])).join('');

function integer(low, high) {
  const sharp = [0, 1, 127, 128, 255, 256, 16383, 16384, 2097151, 2097152, 268435455, 268435456,
    2147483647, 2147483648, 4294967295];
  let n = random() < 0.5 ? one(sharp) : Math.floor(2 ** (random() * 32));
  if (low < 0 && random() < 0.5) n = -n;
  return Math.min(Math.max(n, low), high);
}
function real() {
  const b = bytes(8);
  const n = one([() => b.readDoubleLE(0), () => integer(-1e9, 1e9), () => random(), () => below(1000) / 100,
    () => one([0, 5e-324, 1.7976931348623157e308, 1e21, 123456789012345680000, 1e-7, 0.1 + 0.2, -1.5])])();
  return Number.isFinite(n) && n !== 0 ? n : 0; // a request's text has no -0
}

/* ---- Cases: {op, fields, want}; want(answer) is true, or what was due ---- */
const cases = [];
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
function add(op, fields, expected) {
  cases.push({ op, fields, expected });
}
const equals = (value) => ({ told: value, fits: (answer) => Object.keys(value).every((k) => same(answer[k], value[k])) });
const refused = { told: 'refused', fits: (answer) => !!(answer.error || answer.refused) };

function packages() {
  const list = times(1 + below(5), () => ({ type: 1 + below(5), body: bytes(one([0, 1, below(300), 70000 * (random() < 0.02)])) }));
  const wire = Buffer.concat(list.map((p) => Protocol.Package.encode(p.type, p.body)));
  for (const p of list) {
    add('package.encode', { type: p.type, body: hex(p.body) }, equals({ hex: hex(Protocol.Package.encode(p.type, p.body)) }));
    add('package.frame', { hex: hex(Protocol.Package.encode(p.type, p.body)) }, equals({ type: p.type, body: hex(p.body) }));
  }
  const chunks = [];
  for (let at = 0; at < wire.length;) {
    const n = 1 + below(one([3, 50, 500]));
    chunks.push(hex(wire.subarray(at, at + n)));
    at += n;
  }
  // The reference reads a whole buffer: together, the pieces must give the same.
  let whole = Protocol.Package.decode(wire);
  whole = (Array.isArray(whole) ? whole : [whole]).map((p) => ({ type: p.type, body: hex(p.body) }));
  add('package.stream', { chunks }, {
    told: whole,
    fits: (answer) => answer.closed === null && same([].concat(...answer.packages), whole)
  });
}

function message() {
  const type = below(4);
  const coded = type !== 2 && random() < 0.4;
  const route = type === 2 ? null : coded ? 1 + below(65535) : text(60);
  if (Buffer.byteLength(String(route)) > 255) return;
  const id = type === 0 || type === 2 ? integer(0, 2147483647) : 0;
  const body = bytes(below(40));
  const wire = Protocol.Message.encode(id, type, coded, route, body);
  add('message.encode', { type, id, route, body: hex(body) }, equals({ hex: hex(wire) }));
  const back = Protocol.Message.decode(wire);
  add('message.decode', { hex: hex(wire) }, equals({ type: back.type, id: back.id, route: back.route, body: hex(back.body) }));
}

/* ---- The protobuf dialect ------------------------------------------------ */
const kinds = ['uInt32', 'sInt32', 'int32', 'float', 'double', 'string'];

function schema(depth, known) {
  const out = {};
  const inner = known.slice();
  for (let i = 0; depth && i < below(3); i++) {
    const name = 'M' + depth + i;
    out['message ' + name] = schema(depth - 1, known);
    inner.push(name);
  }
  const tags = new Set();
  for (let i = 0; i < 1 + below(5); i++) {
    const tag = one([1 + below(15), 1 + below(300), 1 + below(100000)]);
    if (tags.has(tag)) continue;
    tags.add(tag);
    out[one(['required', 'optional', 'repeated']) + ' ' + one(inner.length ? [...kinds, one(inner)] : kinds) + ' ' + 'f' + i] = tag;
  }
  return out;
}
function value(scope, top, type, depth) {
  switch (type) {
    case 'uInt32': return integer(0, 4294967295);
    case 'sInt32': case 'int32': return integer(-2147483648, 2147483647);
    case 'float': case 'double': return real();
    case 'string': return lonely(12);
    default: return fitting(scope['message ' + type] || top['message ' + type], top, depth - 1);
  }
}
function fitting(scope, top, depth) {
  const out = {};
  for (const key of Object.keys(scope)) {
    const [option, type, name] = key.split(' ');
    if (!name || (option === 'optional' && random() < 0.4)) continue;
    if (option === 'required' && random() < 0.01) continue;
    const simple = kinds.includes(type);
    if (option !== 'repeated') out[name] = value(scope, top, type, depth);
    else if (simple || depth > 0) out[name] = times(below(4), () => value(scope, top, type, depth));
  }
  return out;
}
// The package guesses its buffer's size by the text, which is too small for
// some numbers: it gets more room.
function encode(route, msg) {
  const stringify = JSON.stringify;
  JSON.stringify = (v) => stringify(v) + ' '.repeat(4096);
  try {
    return protobuf.encode(route, msg);
  } catch (e) {
    return null;
  } finally {
    JSON.stringify = stringify;
  }
}
const plain = (v) => JSON.parse(JSON.stringify(v));
function decode(route, wire) {
  try {
    return { value: plain(protobuf.decode(route, wire)) };
  } catch (e) {
    return null;
  }
}

function spoilt(wire) {
  const b = Buffer.from(wire);
  b[below(b.length)] = one([0, 1, 127, 128, 255, below(256)]);
  return random() < 0.3 ? b.subarray(0, below(b.length)) : b;
}

function schemas() {
  const protos = { 'message Top': schema(1, []), r: schema(2, ['Top']) };
  const parsed = protobuf.parse(protos);
  protobuf.init({ encoderProtos: parsed, decoderProtos: parsed });
  add('protobuf.parse', { protos }, equals({ text: JSON.stringify(parsed) }));
  for (let i = 0; i < 4; i++) {
    const msg = fitting(protos.r, protos, 3);
    const wire = encode('r', msg);
    add('protobuf.encode', { protos, route: 'r', msg }, wire ? equals({ hex: hex(wire) }) : refused);
    if (!wire) continue;
    for (const b of [wire, spoilt(wire)]) {
      const back = decode('r', b);
      add('protobuf.decode', { protos, route: 'r', hex: hex(b) }, back ? equals(back) : refused);
    }
  }
}

/* ---- JSON and UTF-8 ------------------------------------------------------ */
function number() {
  const digits = (n) => times(1 + below(n), () => below(10)).join('');
  return one([() => String(real()), () => (random() < 0.5 ? '-' : '') + one(['0', String(1 + below(9)) + digits(22)]) +
    (random() < 0.5 ? '.' + digits(25) : '') + (random() < 0.4 ? one(['e', 'E', 'e+', 'E-', 'e-']) + digits(3) : '')])();
}
const blank = () => (random() < 0.8 ? '' : one([' ', '\n', '\t', '\r', '  ']));
function literal() {
  const escaped = () => one(['\\"', '\\\\', '\\/', '\\b', '\\f', '\\n', '\\r', '\\t', '\\u0000', '\\u001f', '\\uD83D\\uDE00', '\\ud800', '\\uDC00', '\\u4E2d', '\\u007f']);
  return '"' + times(below(8), () => (random() < 0.4 ? escaped() : JSON.stringify(one(letters)).slice(1, -1))).join('') + '"';
}
function json(depth) {
  const key = () => one([literal, () => '"' + one(['0', '1', '10', '01', '-1', '4294967294', '4294967295', '1e3', 'a', 'b']) + '"'])();
  const inner = () => blank() + json(depth - 1) + blank();
  const which = below(depth > 0 ? 7 : 5);
  if (which === 0) return one(['true', 'false', 'null']);
  if (which < 3) return number();
  if (which < 5) return literal();
  if (which === 5) return '[' + (random() < 0.2 ? blank() : times(1 + below(5), inner).join(',')) + ']';
  return '{' + (random() < 0.2 ? blank() : times(1 + below(7), () => blank() + key() + blank() + ':' + inner()).join(',')) + '}';
}
function jsons() {
  let b = Buffer.from(blank() + json(4) + blank());
  if (random() < 0.4) { // spoilt
    b = Buffer.from(b);
    for (let i = 0; i < 1 + below(2) && b.length; i++) {
      const at = below(b.length);
      b = one([() => Buffer.concat([b.subarray(0, at), b.subarray(at + 1)]),
        () => Buffer.concat([b.subarray(0, at), Buffer.from(one(['"', ',', '}', ']', '0', '-', '.', 'e', '\u00e9', '\\'])), b.subarray(at)]),
        () => { b[at] = below(256); return b; }])();
    }
  }
  let read = {}; // as Pomelo does: what can not be read is {}
  try { read = JSON.parse(b.toString()); } catch (e) { /* spoilt */ }
  add('json.canonical', { hex: hex(b) }, equals({ hex: hex(JSON.stringify(read)) }));
}
function utf8() {
  const start = () => one([[0xc2], [0xe0], [0xed], [0xef], [0xf0], [0xf4], [0xc0], [0xf5], [0x80], [0xbf], [0xe4, 0xb8], [0xf0, 0x9f], [0xed, 0xa0], [0x41]]);
  const b = Buffer.concat(times(below(10), () => one([() => Buffer.from(one(letters)), () => Buffer.from(start()), () => bytes(2)])()));
  add('utf8.clean', { hex: hex(b) }, equals({ hex: hex(b.toString()) }));
}

/* ---- Asking --------------------------------------------------------------- */
for (let i = 0; i < opt.rounds; i++)
  for (const make of [packages, message, message, schemas, jsons, jsons, jsons, utf8]) make();

const line = (c, i) => JSON.stringify(Object.assign({ i, op: c.op }, c.fields));
const child = spawn(opt.codec, [], { stdio: ['pipe', 'pipe', 'inherit'] });
let out = '';
function finish(why) {
  const count = {}, wrong = {};
  const answers = out.split('\n');
  let shown = 0;
  cases.forEach((c, i) => {
    let answer;
    try { answer = JSON.parse(answers[i]); } catch (e) { answer = { error: 'no answer: ' + why }; }
    const fits = answer.i === i && c.expected.fits(answer);
    count[c.op] = (count[c.op] || 0) + 1;
    wrong[c.op] = (wrong[c.op] || 0) + !fits;
    if (!fits && shown++ < 10)
      console.log(`  ${line(c, i)}\n    Pomelo: ${JSON.stringify(c.expected.told)}\n    we:     ${answers[i]}`);
  });
  const ops = Object.keys(count);
  for (const op of ops)
    console.log(wrong[op] ? `  FAIL  ${op}: ${wrong[op]} of ${count[op]} inputs differ, seed ${opt.seed}`
      : `  ok    ${op}: ${count[op]} inputs, seed ${opt.seed}`);
  const failed = ops.filter((op) => wrong[op]).length;
  console.log(`${ops.length - failed} passed, ${failed} failed`);
  process.exit(failed || !ops.length ? 1 : 0);
}
child.on('error', (e) => finish(e.message));
child.on('close', (code, signal) => finish('it ended with ' + (signal || code)));
child.stdin.on('error', () => {});
child.stdout.setEncoding('utf8');
child.stdout.on('data', (d) => { out += d; });
child.stdin.end(cases.map(line).join('\n') + '\n');
