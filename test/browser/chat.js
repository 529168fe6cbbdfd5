/* SPDX-License-Identifier: MIT */
/* chat.js -- the page of examples/chat, in several browsers at once. */
'use strict';

const assert = require('assert');
const fs = require('fs');
const { freePort, freeBase, programPath, waitForText, shot } =
    require('./harness');

/* `--port-base N` moves the ports of the table from 3000 to N. */
const GATE = 14;
const OFFSETS = [GATE, 50, 51, 52];

async function login(t, url, name, options) {
    const watched = await t.page(options);
    await watched.page.goto(url);
    await watched.page.fill('#name', name);
    await watched.page.fill('#room', 'kitchen');
    await watched.page.click('#enter');
    return watched;
}

async function say(page, text) {
    await page.fill('#text', text);
    await page.press('#text', 'Enter');
}

async function names(page) {
    return (await page.locator('#users .user-name').allTextContents()).sort();
}

async function bodies(page) {
    return page.locator('.message .body').allTextContents();
}

async function hide(page, hidden) {
    await page.evaluate((value) => {
        Object.defineProperty(document, 'hidden',
            { configurable: true, get: () => value });
        document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
}

async function colour(page, author) {
    return page.locator('.message', { hasText: author }).first().evaluate(
        (row) => row.style.getPropertyValue('--hue'));
}

async function talk(t, ann, bob) {
    await t.check('what one says to all, all hear', async () => {
        const text = 'tea or \u{1f34a}? <b>now</b>';
        await say(ann, text);
        await waitForText(ann, '.message .body', text);
        await waitForText(bob, '.message .body', text);
        assert.strictEqual(await colour(ann, 'ann'), await colour(bob, 'ann'));
    });
    await t.check('the title counts what was not seen', async () => {
        await hide(bob, true);
        await say(ann, 'one');
        await say(ann, 'two');
        await bob.waitForFunction(() => document.title.startsWith('(2) '));
        await hide(bob, false);
        await bob.waitForFunction(() => !document.title.startsWith('('));
    });
}

async function whisper(ann, bob, cid) {
    await ann.click('.user[data-user="bob"]');
    await say(ann, 'for bob alone');
    await waitForText(bob, '.message.private .body', 'for bob alone');
    await waitForText(ann, '.message.private .tag', 'private, to bob');
    await ann.click('#untarget');
    await say(ann, 'for all again');
    await waitForText(cid, '.message .body', 'for all again');
    assert.ok(!(await bodies(cid)).includes('for bob alone'));
    assert.strictEqual((await bodies(bob)).filter(
        (text) => text === 'for bob alone').length, 1);
}

async function comeBack(t, first, args, ann, cid) {
    await first.kill();
    await waitForText(ann, '#banner', 'Connection lost');
    await shot(ann, 'chat-lost');
    await t.program('chat', args);
    for (const page of [ann, cid]) {
        await waitForText(page, '.note', 'You are back');
    }
    await waitForText(ann, '#users .user-name', 'cid');
    await waitForText(cid, '#users .user-name', 'ann');
    await say(cid, 'still here');
    await waitForText(ann, '.message .body', 'still here');
}

module.exports = async (t) => {
    const base = await freeBase(OFFSETS);
    const args = ['--port-base', base, '--web-port', await freePort()];
    const first = await t.program('chat', args);
    const url = first.url.split('?')[0] + '?port=' + (base + GATE);
    const phone = { viewport: { width: 360, height: 740 } };
    const ann = await login(t, url, 'ann', { colorScheme: 'light' });
    await waitForText(ann.page, '.note', 'first one here');
    const bob = await login(t, url, 'bob', { colorScheme: 'dark' });
    const cid = await login(t, url, 'cid', phone);

    await t.check('joins are seen at once', async () => {
        await waitForText(ann.page, '.note', 'bob came in');
        await waitForText(bob.page, '.note', 'cid came in');
        for (const one of [ann, bob, cid]) {
            await waitForText(one.page, '#users .user-name', 'cid');
            assert.deepStrictEqual(await names(one.page),
                ['ann', 'bob', 'cid']);
        }
    });
    await talk(t, ann.page, bob.page);
    await t.check('a private message reaches one only',
        () => whisper(ann.page, bob.page, cid.page));
    await t.check('a second login of a name is refused', async () => {
        const twin = await login(t, url, 'ann', phone);
        await waitForText(twin.page, '#login-error', 'already in this room');
        assert.ok(await twin.page.isHidden('#house'));
    });
    await shot(ann.page, 'chat-light');
    await shot(bob.page, 'chat-dark');
    await shot(cid.page, 'chat-phone');
    await t.check('a leave is seen', async () => {
        await bob.context.close();
        await waitForText(ann.page, '.note', 'bob left');
        assert.deepStrictEqual(await names(ann.page), ['ann', 'cid']);
    });
    await t.check('comes back after kill -9',
        () => comeBack(t, first, args, ann.page, cid.page));
    await t.check('the pages made no mistake', async () => {
        for (const one of [ann, bob, cid]) {
            assert.deepStrictEqual(one.mistakes, []);
        }
    });
};

module.exports.skip = () => fs.existsSync(programPath('chat')) ? '' :
    'there is no ' + programPath('chat') + ' yet';
