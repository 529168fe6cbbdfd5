/* SPDX-License-Identifier: MIT */
/* page.js -- the page of a project that `pomelo init` has made, in a browser:
 * two users in a room. Started by run.sh with the page's address. */
'use strict';

const assert = require('assert');
const harness = require('../browser/harness');

const [url] = process.argv.slice(2);

async function enter(page, name) {
    await page.goto(url);
    await page.fill('#name', name);
    await page.fill('#room', 'lobby');
    await page.click('#login button');
    await harness.waitForText(page, '#users li', name);
    assert.ok(await page.isHidden('#login') && await page.isVisible('#talk'));
}

async function story(t) {
    const alice = await t.page();
    const bob = await t.page();
    await t.check('two users enter a room', async () => {
        await enter(alice.page, 'alice');
        await enter(bob.page, 'bob');
        await harness.waitForText(alice.page, '#users li', 'bob');
        await harness.waitForText(bob.page, '#users li', 'alice');
    });
    await t.check('one hears the other', async () => {
        await bob.page.fill('#text', 'hello \u{1f44b} <b>');
        await bob.page.click('#talk button');
        await harness.waitForText(alice.page, '#log', 'bob: hello \u{1f44b} <b>');
        await harness.shot(alice.page, 'project');
    });
    await t.check('who leaves is seen to leave', async () => {
        await bob.context.close();
        await harness.waitForText(alice.page, '#log', 'bob has left');
        assert.deepStrictEqual(alice.mistakes, []);
        assert.deepStrictEqual(bob.mistakes, []);
    });
}

harness.runFile('project', story).then(harness.finish);
