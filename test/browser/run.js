/* SPDX-License-Identifier: MIT */
/* run.js -- runs the browser tests one after the other and counts. Started
 * by run.sh, which sees to the packages. Names after it choose files. */
'use strict';

const harness = require('./harness');

const FILES = ['client', 'hello', 'tls', 'template', 'chat'];

async function main() {
    const chosen = process.argv.slice(2);
    for (const file of chosen.length > 0 ? chosen : FILES) {
        await harness.runFile(file, require('./' + file));
    }
    await harness.finish();
}

main().catch(async (error) => {
    harness.record('run', error);
    await harness.finish();
});
