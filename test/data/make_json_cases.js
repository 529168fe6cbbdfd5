// SPDX-License-Identifier: MIT
// make_json_cases.js -- what JavaScript makes of JSON texts, for test_json.c.
//
//     node make_json_cases.js [seed [scale]] > json_cases.json
//
// Made with Node 20. Deterministic for a seed; `scale` multiplies the random
// part (1 is what is committed). Each line of the result is one case:
//   texts   [in, out]   out = JSON.stringify(JSON.parse(in)), absent: throws
//   bytes   [in, out]   the same in hex; `in` is read as WHATWG UTF-8 first
//   doubles [bits, out] String() of the double with these bits
'use strict';

let state = BigInt(process.argv[2] || 20260101);
const scale = Number(process.argv[3] || 1);

// xorshift64*, so that every machine draws the same numbers.
function draw() {
  state ^= state >> 12n;
  state = (state ^ (state << 25n)) & 0xffffffffffffffffn;
  state ^= state >> 27n;
  return (state * 2685821657736338717n) & 0xffffffffffffffffn;
}
const below = (n) => Number(draw() >> 11n) % n;
const pick = (list) => list[below(list.length)];
const digits = (n) => Array.from({ length: n }, () => below(10)).join('');

const view = new DataView(new ArrayBuffer(8));
function doubleOf(bits) {
  view.setBigUint64(0, bits);
  return view.getFloat64(0);
}
function bitsOf(value) {
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}

// The decimal text of the middle between a double and the next one, all of it.
function middle(value) {
  const bits = bitsOf(Math.abs(value));
  const exp = Number(bits >> 52n);
  let m = bits & 0xfffffffffffffn;
  if (exp) m |= 1n << 52n;
  m = 2n * m + 1n;
  const q = (exp || 1) - 1076;
  return q >= 0 ? String(m << BigInt(q)) : `${m * 5n ** BigInt(-q)}e${q}`;
}

function randomDouble() {
  switch (below(9)) {
    case 0: return doubleOf(draw());
    case 1: return doubleOf(draw() & 0xfff0000000000000n); // powers of two
    case 2: return doubleOf(draw() & 0x800fffffffffffffn); // subnormal
    case 3: return Number(BigInt.asIntN(64, draw()) >> BigInt(below(64)));
    case 4: return below(1e7) / pick([10, 100, 1000, 1e4, 1e6]);
    case 5: return below(2 ** 53) / 2 ** 53;
    case 6: return Number(`${below(1000)}e${below(660) - 340}`);
    case 7: return 2 ** (below(120) - 30) + below(3) - 1;
    default: return Number(digits(1 + below(19))) * 10 ** (below(10) - 5);
  }
}

function numberText() {
  const sign = pick(['', '', '-']);
  switch (below(6)) {
    case 0: {
      const value = randomDouble();
      return Number.isFinite(value) ? String(value) : '0';
    }
    case 1: return sign + pick(['0', '1' + digits(below(25))]);
    case 2: return `${sign}${below(100)}.${digits(1 + below(30))}`;
    case 3: return `${sign}${below(10)}.${digits(1 + below(20))}` +
      pick(['e', 'E']) + pick(['', '+', '-']) + pick(['', '0', '00']) +
      below(330);
    case 4: {
      // Far from 1 such texts are long: few of them.
      const value = Math.abs(randomDouble());
      const far = value > 1e60 || value < 1e-20;
      return Number.isFinite(value) && (!far || below(20) === 0)
        ? sign + middle(value) : '0e99';
    }
    default: return sign + below(1000);
  }
}

const bits = [
  '', 'a', 'key', '/', '中文', '玩家', 'é', '\u007f', '\u2028', '😀',
  '\\"', '\\\\', '\\/', '\\b', '\\f', '\\n', '\\r', '\\t', '\\u0041',
  '\\u00e9', '\\u4e2d', '\\ud83d\\ude00', '\\uD83D\\uDE00', '\\ud800',
  '\\udc00', '\\ud800\\ud800', '\\ud83d\\u0041', '\\udbff\\udfff', '\\u001f',
  '\\u000a', '\\u007f', '\\uffff', '\\ufffd', '\\ufeff', ' ', '0', '10',
];
const stringText = () =>
  `"${Array.from({ length: below(6) }, () => pick(bits)).join('')}"`;
function keyText() {
  switch (below(4)) {
    case 0: return stringText();
    case 1: return `"${below(20)}"`;
    case 2: return `"${pick(['a', 'b', 'c', 'd', 'aa', '__proto__', '01', '-1',
      '1.0', '1e3', '4294967294', '4294967295', '4294967296', '99999999999',
      'constructor', '', '00', '\\u0031', '2147483648'])}"`;
    default: return `"k${below(40)}"`;
  }
}
const gap = () => (below(8) ? '' : pick([' ', '\n', '\t', '\r', '  \r\n']));

function valueText(depth) {
  const kind = below(depth > 0 ? 9 : 5);
  if (kind === 0) return pick(['true', 'false', 'null']);
  if (kind < 3) return numberText();
  if (kind < 5) return stringText();
  const n = below(12) ? below(5) : below(30);
  const open = kind < 8 ? '{' : '[';
  const items = Array.from({ length: n }, () => gap() +
    (open === '{' ? keyText() + gap() + ':' + gap() : '') +
    valueText(depth - 1) + gap());
  return open + (n ? items.join(',') : gap()) + (open === '{' ? '}' : ']');
}

// A text with one small fault, often.
function broken() {
  const text = valueText(2);
  const at = below(text.length + 1);
  const junk = pick(['', ',', ':', '{', '}', '[', ']', '"', '\\', '0', '.',
    '-', 'e', '\u0001', '\n', ' ', 'x', '\ufeff', "'", '+', '/*', 'u', '中']);
  const cut = text.slice(0, at) + junk + text.slice(at + below(2));
  return Buffer.from(cut).toString(); // half a pair is no text on a wire
}

const tidy = (text) => JSON.stringify(JSON.parse(text));
function textCase(text) {
  try {
    return [text, tidy(text)];
  } catch (e) {
    return [text];
  }
}

function bytesCase(bytes) {
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  const hex = Buffer.from(bytes).toString('hex');
  try {
    return [hex, Buffer.from(tidy(text)).toString('hex')];
  } catch (e) {
    return [hex];
  }
}
function randomBytes() {
  const lead = [0x41, 0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed,
    0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff, 0x9f, 0xa0, 0x90, 0x8f, 0xb0, 0x5c];
  const n = below(12);
  const inner = Array.from({ length: n }, () => pick(lead));
  return below(20) ? [0x22, ...inner, 0x22] : [0x22, ...inner];
}

const fixedTexts = [
  '', ' ', '\ufeff1', '1 2', '01', '-', '-0', '-0.0', '+1', '.5', '5.', '1e',
  '1e+', '1.e1', '0x10', '00', '-01', 'NaN', 'Infinity', 'nul', 'nulll',
  'True', "'a'", '"a', '"\\', '"\\u', '"\\u12', '"\\u12g4"', '"\\x41"',
  '"\\u+123"', '"a\nb"', '"\t"', '"\u007f"', '[', '[1', '[1,', '[1,]', '[,1]',
  '[]', '[ ]', '[]]', '{', '{}', '{ }', '{"a"', '{"a":', '{"a":1', '{"a":1,',
  '{"a":1,}', '{,}', '{a:1}', "{'a':1}", '{"a" 1}', '{"a"::1}', '{1:1}',
  '{"a":1 "b":2}', '{"a":1}}', '[1}', '{"a":1]', '"\\u0000"', '{"\\u0000":1}',
  '{"a\\u0000b":1,"a":2,"a\\u0000b":3}', '"\\ud83d\\ude00"', '"\\ude00\\ud83d"',
  '"\\ud83d\\ud83d\\ude00"', '"\\ud800\\u0041"', '"\\ud800x\\udc00"',
  '1e400', '-1e400', '[1e400,1e-400,-1e-400]', '1e21', '1e20', '123456789e13',
  '1e-6', '1e-7', '0.000001', '0.0000001', '1.5e-7', '5e-324', '2e-324', '3e-324',
  '1.7976931348623157e308', '1.7976931348623159e308', '9007199254740993',
  '2.2250738585072011e-308', '9007199254740992.999', '0.1', '0.30000000000000004',
  '100000000000000000000', '1000000000000000000000', '12345678901234567000',
  '0e99999999999999999999', '1e99999999999999999999', '1e-99999999999999999999',
  '0.' + '0'.repeat(400) + '1e401', '1' + '0'.repeat(400) + 'e-400',
  '9'.repeat(1200) + 'e-1190', '9007199254740993.' + '0'.repeat(900) + '1',
  '9007199254740993.' + '0'.repeat(900), '0.' + '0'.repeat(30) + '1',
  '{"b":1,"a":2,"b":3}', '{"2":1,"1":2,"x":3,"0":4}', '{"x":1,"10":2,"9":3}',
  '{"4294967295":1,"4294967294":2,"01":3,"0":4}', '{"1":1,"1":2,"0":3,"1":4}',
  '{"__proto__":1,"a":{"__proto__":[]}}', '{"":1,"":2}', '\t\r\n 1 \t\r\n',
  '\u000b1', '\u00a01', '1\u2028', '"\u2028\u2029/<>&"', '"\\/"',
];
const manyKeys = (n, key) =>
  `{${Array.from({ length: n }, (_, i) => `"${key(i)}":${i}`).join(',')}}`;
const fixedBytes = ['2200 22', '220022', '00', '31 00', 'efbbbf31', 'ff',
  '22eda08022', '22eda0bdedb88022', '22f09f988022', '22f0808022', '22c08022',
  '22f4908080 22', '22f48fbfbf22', '22f09f9822', '22e4b822', '22e4b8', '22c3',
  '22e4b85c6e22', '22f8888080 8022', '22efbfbd22', '22e0809f22', '22edbfbf22'];

const out = {
  texts: [
    ...fixedTexts.map(textCase),
    textCase(manyKeys(40, (i) => `p${i % 17}`)),
    textCase(manyKeys(300, (i) => (i * 7919) % 211)),
    textCase(manyKeys(300, (i) => (i % 2 ? 'n' : '') + ((i * 31) % 97))),
    ...Array.from({ length: 1000 * scale }, () => textCase(numberText())),
    ...Array.from({ length: 700 * scale }, () => textCase(valueText(3))),
    ...Array.from({ length: 700 * scale }, () => textCase(broken())),
  ],
  bytes: [
    ...fixedBytes.map((hex) => hex.replace(/ /g, '')).map((hex) =>
      bytesCase(Buffer.from(hex, 'hex'))),
    ...Array.from({ length: 500 * scale }, () =>
      bytesCase(Uint8Array.from(randomBytes()))),
  ],
  doubles: Array.from({ length: 1500 * scale }, (_, i) => {
    // Every power of two once, where the neighbours are uneven.
    const value = i < 2098 / 7 ? 2 ** (i * 7 - 1074) : randomDouble();
    return [bitsOf(value).toString(16).padStart(16, '0'), String(value)];
  }),
};

const ascii = (value) => JSON.stringify(value).replace(/[\u007f-\uffff]/g,
  (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
const lines = (cases) => `[\n${cases.map(ascii).join(',\n')}\n]`;
process.stdout.write(`{"about": "made by make_json_cases.js",\n` +
  Object.keys(out).map((k) => `"${k}": ${lines(out[k])}`).join(',\n') + '\n}\n');
