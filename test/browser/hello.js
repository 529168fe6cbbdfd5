/* SPDX-License-Identifier: MIT */
/* hello.js -- our own page of examples/hello, in a browser. */
'use strict';

const assert = require('assert');
const { freePort, waitForText, shot } = require('./harness');

function row(name, dir) {
    return '#log details[data-name="' + name + '"][data-dir="' + dir + '"]';
}

async function answers(page) {
    await page.click('#test');
    await waitForText(page, '#result', 'game server is ok.');
    assert.strictEqual(await page.textContent('#result'),
        'game server is ok.');
    assert.match(await page.textContent('#rtt'), /^\d+(\.\d)? ms$/);
}

async function logTellsTheStory(page) {
    for (const [name, dir] of [['handshake', 'out'], ['handshake', 'in'],
        ['handshake ack', 'out'], ['heartbeat', 'in'], ['request', 'out'],
        ['response', 'in']]) {
        await page.waitForSelector(row(name, dir));
    }
    await page.click(row('request', 'out') + ' summary');
    const hex = await page.textContent(row('request', 'out') + ' .hex');
    assert.match(hex, /^04 00 00 /);
    assert.notStrictEqual(await page.getAttribute('#spark-line', 'd'), null);
}

async function fits(t, url, name, options) {
    const { page, mistakes } = await t.page(options);
    await page.goto(url);
    await answers(page);
    await shot(page, 'hello-' + name);
    const width = await page.evaluate(
        () => document.documentElement.scrollWidth);
    assert.ok(width <= options.viewport.width, 'it is ' + width + ' wide');
    assert.deepStrictEqual(mistakes, []);
}

module.exports = async (t) => {
    const args = ['--port', await freePort(), '--web-port', await freePort()];
    const first = await t.program('hello', args);
    const url = first.url.split('?')[0] + '?port=' + args[1];
    const { page, mistakes } = await t.page();

    await t.check('the button gets the answer', async () => {
        await page.goto(url);
        await waitForText(page, '#state-text', 'connected');
        await answers(page);
        assert.deepStrictEqual(mistakes, []);
    });
    await t.check('the log shows each package and its bytes',
        () => logTellsTheStory(page));
    await t.check('heartbeats go on', () => page.waitForFunction(
        () => Number(document.getElementById('beats').textContent) >= 3));
    await t.check('fits a phone, light', () => fits(t, url, 'phone-light',
        { viewport: { width: 360, height: 740 }, colorScheme: 'light' }));
    await t.check('fits a phone, dark', () => fits(t, url, 'phone-dark',
        { viewport: { width: 360, height: 740 }, colorScheme: 'dark' }));
    await t.check('comes back after kill -9', async () => {
        await first.kill();
        await waitForText(page, '#state-text', 'no game server');
        await t.program('hello', args);
        await waitForText(page, '#state-text', 'connected');
        await answers(page);
        assert.deepStrictEqual(mistakes, []);
    });
};
