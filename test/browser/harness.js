/* SPDX-License-Identifier: MIT */
/* harness.js -- what the browser tests share: example programs started and
 * ended, pages that are watched for mistakes, and the count.
 *
 * A test file exports one async function of a `t`: t.check(name, fn) runs a
 * step and prints its line; t.program() and t.page() make things that are
 * ended with the file, whatever happened. Its `skip`, if it has one, tells why
 * it can not run, or nothing. Start reading at runFile(). */
'use strict';

const { spawn } = require('child_process');
const fs = require('fs');
const net = require('net');
const path = require('path');
const { chromium } = require('playwright-core');

const BUILD = path.resolve(process.env.BUILD || 'build');
const SHOTS = path.join(BUILD, 'browser', 'shots');
const CHROMIUM = ['chromium', 'chromium-browser', 'google-chrome'];
const CHROMIUM_ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic',
    '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'];
const STEP_MS = 15000;
const CHECK_MS = 60000;
const FILE_MS = 240000;
const LOOPBACK = /^(localhost|127\.0\.0\.1|\[::1\])$/;

let passed = 0;
let failed = 0;
let browser = null;
const living = new Set();

/* However this ends, no program of ours is left behind. */
process.on('SIGTERM', () => process.exit(1));
process.on('exit', () => living.forEach((child) => child.kill('SIGKILL')));

/* ---- Counting ---------------------------------------------------------- */

function record(name, error) {
    if (!error) {
        passed++;
        console.log('  ok    ' + name);
        return;
    }
    failed++;
    console.log('  FAIL  ' + name);
    const text = String(error.stack || error).split('\n').slice(0, 30);
    text.forEach((line) => console.log('          ' + line));
}

async function within(ms, promise) {
    let timer;
    const late = new Promise((resolve, reject) => {
        timer = setTimeout(() => reject(new Error('no end in ' + ms + ' ms')),
            ms);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}

async function check(name, fn, limitMs) {
    try {
        await within(limitMs || CHECK_MS, fn());
        record(name);
    } catch (error) {
        record(name, error);
    }
}

async function finish() {
    if (browser) {
        await browser.close();
    }
    console.log(passed + ' passed, ' + failed + ' failed');
    process.exit(failed > 0 ? 1 : 0);
}

/* In the reverse order. Each has to end well: a crash or a leak at the end of
 * a server is a failure of the file, but does not spare the others. */
async function endAll(ends) {
    const errors = [];
    for (const end of ends) {
        try {
            await end();
        } catch (error) {
            errors.push(error);
        }
    }
    if (errors.length > 0) {
        throw errors[0];
    }
}

async function runFile(file, story) {
    const ends = [];
    const t = {
        check: (name, fn) => check(file + ': ' + name, fn),
        program: async (name, args) => {
            const program = new Program(name, args);
            ends.unshift(() => program.stop());
            await program.ready();
            return program;
        },
        page: async (options) => {
            const watched = await openPage(options || {});
            ends.unshift(() => watched.context.close());
            return watched;
        },
        atEnd: (fn) => ends.unshift(fn)
    };
    if (story.skip && story.skip()) {
        console.log('  skip  ' + file + ': ' + story.skip());
        return;
    }
    await check(file + ': starts and ends well', async () => {
        try {
            await story(t);
        } finally {
            await endAll(ends);
        }
    }, FILE_MS);
}

/* ---- Programs ---------------------------------------------------------- */

function programPath(name) {
    return path.join(BUILD, 'examples', name, name);
}

/* An example server in a process of its own. It says "open http://..." when
 * it serves. */
class Program {
    constructor(name, args) {
        this.name = name;
        this.output = '';
        if (!fs.existsSync(programPath(name))) {
            throw new Error(programPath(name) + ' does not exist');
        }
        this.child = spawn(programPath(name), args.map(String),
            { stdio: ['ignore', 'pipe', 'pipe'] });
        living.add(this.child);
        this.exited = new Promise((resolve) => {
            this.child.on('error', (error) => resolve(error.message));
            this.child.on('exit', (code, signal) => {
                this.ended = true;
                living.delete(this.child);
                resolve(signal || code);
            });
        });
        this.said = new Promise((resolve) => {
            const hear = (text) => {
                this.output += text;
                const found = /open (http:\/\/\S+)/.exec(this.output);
                if (found) {
                    resolve(found[1]);
                }
            };
            this.child.stdout.on('data', hear);
            this.child.stderr.on('data', hear);
        });
    }

    async ready() {
        const gone = this.exited.then((how) => {
            throw new Error(this.name + ' ended at once (' + how + '):\n' +
                this.output);
        });
        this.url = await within(STEP_MS, Promise.race([this.said, gone]));
        gone.catch(() => {});
    }

    async kill() {
        this.killed = true;
        this.child.kill('SIGKILL');
        await this.exited;
    }

    async stop() {
        if (this.killed) {
            return;
        }
        const before = this.ended;
        this.child.kill('SIGTERM');
        let how;
        try {
            how = await within(STEP_MS, this.exited);
        } catch (error) {
            await this.kill();
            how = 'did not end on SIGTERM';
        }
        if (how !== 0 || before) {
            throw new Error(this.name + (before ? ' had ended before' : '') +
                ': ' + how + '\n' + this.output);
        }
    }
}

function portIsFree(port) {
    return new Promise((resolve) => {
        const probe = net.createServer();
        probe.once('error', () => resolve(0));
        probe.listen(port, () => {
            const found = probe.address().port;
            probe.close(() => resolve(found));
        });
    });
}

async function freePort() {
    return freeBase([0]);
}

/* A base to which all of `offsets` can be added, each time another: below the
 * ports that systems give to outgoing connections, a browser's among them. */
let nextBase = 21000;

async function freeBase(offsets) {
    while (nextBase < 28000) {
        const base = nextBase;
        nextBase += 10;
        const found = await Promise.all(
            offsets.map((offset) => portIsFree(base + offset)));
        if (found.every(Boolean)) {
            return base;
        }
    }
    throw new Error('no free ports');
}

/* ---- Pages ------------------------------------------------------------- */

async function launch() {
    if (!browser) {
        const folders = (process.env.PATH + ':/usr/bin').split(':');
        const names = process.env.CHROMIUM ? [process.env.CHROMIUM] :
            CHROMIUM.reduce((all, name) => all.concat(
                folders.map((folder) => path.join(folder, name))), []);
        const executablePath = names.find((name) => fs.existsSync(name));
        if (!executablePath) {
            throw new Error('there is no chromium (make deps)');
        }
        browser = await chromium.launch(
            { executablePath: executablePath, args: CHROMIUM_ARGS });
    }
    return browser;
}

/* `mistakes` gathers exceptions, files that are missing, and whatever the
 * page wants from another machine: it should want nothing. */
async function openPage(options) {
    const context = await (await launch()).newContext(Object.assign(
        { viewport: { width: 1000, height: 900 } }, options));
    const page = await context.newPage();
    const mistakes = [];
    page.setDefaultTimeout(STEP_MS);
    page.on('pageerror', (error) => mistakes.push(String(error)));
    page.on('request', (request) => {
        const url = new URL(request.url());
        if (/^http/.test(url.protocol) && !LOOPBACK.test(url.hostname)) {
            mistakes.push('asked for ' + url);
        }
    });
    page.on('response', (response) => {
        if (response.status() >= 400) {
            mistakes.push(response.status() + ' for ' + response.url());
        }
    });
    return { context: context, page: page, mistakes: mistakes };
}

async function waitForText(page, selector, text) {
    try {
        await page.waitForFunction(([where, what]) =>
            Array.from(document.querySelectorAll(where)).some(
                (one) => one.textContent.includes(what)), [selector, text]);
    } catch (error) {
        const seen = await page.locator(selector).allTextContents();
        throw new Error('no "' + text + '" in ' + selector + ', but ' +
            JSON.stringify(seen));
    }
}

async function shot(page, name) {
    fs.mkdirSync(SHOTS, { recursive: true });
    await page.screenshot({ path: path.join(SHOTS, name + '.png') });
}

module.exports = { BUILD, record, runFile, finish, programPath, freePort,
    freeBase, portIsFree, waitForText, shot };
