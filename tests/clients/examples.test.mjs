// The example clients of docs/examples: they state the cause when a node can't be reached, an
// origin is refused, a name is missing or a token fails, and they fit the screen of a phone.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import {
    DEADLINE_MS,
    eventually,
    freePort,
    inSeconds,
    scenario,
    SECRET,
    token,
    within,
} from './harness.mjs';
import {
    EXAMPLES,
    LIBRARY,
    openPage,
    PHONE_WIDTH,
    serveExamples,
    shows,
} from './harness/examples.mjs';

const webSocketUrl = (node) => node.url.replace('http', 'ws');

/** Fills the form of chat.html and submits it, as a click does. */
const enter = (page, values) =>
    page.run(`{
        const form = document.getElementById('enter');
        for (const [name, value] of Object.entries(${JSON.stringify(values)})) {
            form.elements[name].value = value;
        }
        form.querySelector('button').click();
    }`);

const formIsVisible = (page) => page.run(`document.getElementById('enter').offsetHeight > 0`);

async function fitsAPhone(page, focused) {
    const width = await page.run('document.documentElement.scrollWidth');
    assert.equal(width, PHONE_WIDTH, 'the page is as wide as the screen');
    assert.equal(await page.run('document.activeElement.name ?? null'), focused, 'the focus');
}

scenario('chat.html enters a room, and says when a name, the library or the node is missing', async (lab) => {
    const site = await serveExamples(lab);
    const node = await lab.node();
    const page = await openPage(lab, `${site}/chat.html`);
    await fitsAPhone(page, 'name');
    await enter(page, { server: node.url });
    await shows(page, /Enter a name, or a token/);
    assert.ok(await formIsVisible(page));
    await enter(page, { server: node.url, name: 'ann' });
    await shows(page, /in lobby with 1 user/);
    await fitsAPhone(page, 'content');
    await page.run(`
        document.querySelector('#send input').value = 'hello <b>all</b>';
        document.getElementById('send').requestSubmit();`);
    await shows(page, /ann: hello <b>all<\/b>/);
    assert.doesNotMatch(await page.run('document.body.innerText'), /Enter a name/);

    const port = await freePort();
    const alone = await openPage(lab, `${site}/chat.html`);
    await enter(alone, { server: `http://127.0.0.1:${port}`, name: 'ann' });
    await shows(alone, new RegExp(`No answer from http://127.0.0.1:${port}.*Trying again`));

    const withoutLibrary = await serveExamples(lab, { library: false });
    await shows(await openPage(lab, `${withoutLibrary}/chat.html`), /Run npm install/);
});

scenario('chat.html says that its origin is refused, or which token is wrong', async (lab) => {
    const site = await serveExamples(lab);
    const strict = await lab.node({ JWT_SECRET: SECRET });
    const refused = await openPage(lab, `${site}/chat.html`);
    await enter(refused, { server: strict.url, token: token({ sub: 'ann' }) });
    await shows(refused, new RegExp(`refuses pages of the origin ${site} \\(see ALLOWED_ORIGINS\\)`));

    const node = await lab.node({ JWT_SECRET: SECRET, ALLOWED_ORIGINS: site });
    const page = await openPage(lab, `${site}/chat.html`);
    await enter(page, { server: node.url, token: token({ sub: 'ann' }, { secret: 'another' }) });
    await shows(page, /refused: unauthorized: /);
    // The form is back: another token can be entered.
    assert.ok(await formIsVisible(page));
    await fitsAPhone(page, 'token');
    await enter(page, { token: token({ sub: 'ann', exp: inSeconds(-60) }) });
    await shows(page, /refused: token_expired: /);
    await enter(page, { token: '', name: 'ann' });
    await shows(page, /needs a token/);
    await enter(page, { token: token({ sub: 'ann' }) });
    await shows(page, /in lobby with 1 user/);
    await node.rest('POST', '/users/ann/disconnect', {
        headers: { authorization: `Bearer ${token({ sub: 'service', role: 'service' })}` },
    });
    await shows(page, /the node ended the session: forbidden: /);
});

for (const [name, address] of [
    ['first-chat.html', (node) => webSocketUrl(node)],
    ['tasks.html', (node) => `${webSocketUrl(node)}/ws`],
]) {
    scenario(`${name} says why it has no connection`, async (lab) => {
        const site = await serveExamples(lab);
        const page = `${site}/${name}`;
        const nowhere = { url: `http://127.0.0.1:${await freePort()}` };
        const down = await openPage(lab, page, { url: address(nowhere) });
        await shows(down, /no answer from ws:.*Either no node runs there/);

        const strict = await lab.node({ JWT_SECRET: SECRET });
        const refused = await openPage(lab, page, { url: address(strict) });
        await shows(refused, new RegExp(`refuses pages of the origin ${site} \\(see ALLOWED_ORIGINS\\)`));

        const node = await lab.node({ JWT_SECRET: SECRET, ALLOWED_ORIGINS: site });
        const bad = await openPage(lab, page, { url: address(node), token: 'x.y.z' });
        await shows(bad, /refused: unauthorized: Invalid token.*a valid \?token=/);
        const none = await openPage(lab, page, { url: address(node) });
        await shows(none, /refused: unauthorized: Authorization header required/);
        const expiring = token({ sub: 'ann', exp: inSeconds(2) });
        const short = await openPage(lab, page, { url: address(node), token: expiring });
        await shows(short, /closed by the node: token_expired; come back with a new token/);
    });
}

scenario('first-chat.html and tasks.html look right on a phone', async (lab) => {
    const site = await serveExamples(lab);
    const node = await lab.node();
    const chat = await openPage(lab, `${site}/first-chat.html`, { name: 'ann', url: webSocketUrl(node) });
    await shows(chat, /in lobby as ann, 1 user\(s\) present/);
    await fitsAPhone(chat, 'text');
    await node.post({ room_id: 'lobby', content: 'x'.repeat(300) });
    await shows(chat, /System: x/);
    await fitsAPhone(chat, 'text');

    const tasks = await openPage(lab, `${site}/tasks.html`, { url: `${webSocketUrl(node)}/ws` });
    await shows(tasks, /current/);
    await shows(tasks, /No task yet/);
    // A broadcast without a title, as in docs/websocket.md.
    await node.rest('POST', '/api/broadcast', { body: { type: 'task_created', data: { id: 7 } } });
    await shows(tasks, /task 7: open/);
    assert.doesNotMatch(await tasks.run('document.body.innerText'), /No task yet|undefined/);
    await fitsAPhone(tasks, null);
});

scenario('npm install in the folder of the examples leaves only what git ignores', async (lab) => {
    const folder = lab.directory();
    const files = ['.npmrc', 'package.json'];
    files.forEach((name) => copyFileSync(path.join(EXAMPLES, name), path.join(folder, name)));
    const before = readFileSync(path.join(folder, 'package.json'), 'utf8');
    const install = spawn('npm', ['install', '--prefer-offline'], { cwd: folder, stdio: 'ignore' });
    assert.deepEqual(await once(install, 'exit'), [0, null]);
    assert.deepEqual(readdirSync(folder).sort(), ['.npmrc', 'node_modules', 'package.json']);
    assert.equal(readFileSync(path.join(folder, 'package.json'), 'utf8'), before);
});

/** Runs chat.mjs with the library of these tests, and collects its output. */
function terminal(lab, args, env = {}) {
    const folder = lab.directory();
    copyFileSync(path.join(EXAMPLES, 'chat.mjs'), path.join(folder, 'chat.mjs'));
    mkdirSync(path.join(folder, 'node_modules'));
    symlinkSync(LIBRARY, path.join(folder, 'node_modules/socket.io-client'));
    const child = spawn(process.execPath, ['chat.mjs', ...args], {
        cwd: folder,
        env: { PATH: process.env.PATH, ...env },
    });
    const output = { text: '' };
    for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text) => (output.text += text));
    }
    const exited = once(child, 'exit').then(([code]) => code);
    lab.otherProcesses.push({
        kill: async () => {
            child.kill('SIGKILL');
            await exited;
        },
    });
    return {
        child,
        prints: (pattern) =>
            eventually(() => pattern.test(output.text), DEADLINE_MS, `it prints ${pattern}`).catch(
                (error) => assert.fail(`${error.message}; it printed:\n${output.text}`),
            ),
        ends: async (code) =>
            assert.equal(await within(DEADLINE_MS, 'chat.mjs ends', exited), code, output.text),
    };
}

scenario('chat.mjs states the cause, and ends where only a change helps', async (lab) => {
    const usage = terminal(lab, []);
    await usage.prints(/usage: node chat.mjs NAME/);
    await usage.ends(2);
    const noToken = terminal(lab, ['-']);
    await noToken.prints(/HUBBUB_TOKEN is not set/);
    await noToken.ends(2);

    // A node that starts later is found.
    const proxy = await lab.proxy(await lab.node());
    proxy.refusing = true;
    const waiting = terminal(lab, ['ann', 'lobby', proxy.url]);
    await waiting.prints(new RegExp(`no connection to ${proxy.url}: .+; trying again`));
    proxy.refusing = false;
    await waiting.prints(/in lobby with 1 user/);
    const down = terminal(lab, ['ann', 'lobby', `http://127.0.0.1:${await freePort()}`]);
    await down.prints(/no connection to .*ECONNREFUSED.*; trying again/);

    const node = await lab.node({ JWT_SECRET: SECRET });
    const anonymous = terminal(lab, ['ann', 'lobby', node.url]);
    await anonymous.prints(/needs a token: set HUBBUB_TOKEN/);
    await anonymous.ends(1);
    const bad = terminal(lab, ['-', 'lobby', node.url], { HUBBUB_TOKEN: 'x.y.z' });
    await bad.prints(/refused: unauthorized: /);
    await bad.ends(1);
    const elsewhere = token({ sub: 'ann', rooms: ['other'] });
    const forbidden = terminal(lab, ['-', 'lobby', node.url], { HUBBUB_TOKEN: elsewhere });
    await forbidden.prints(/join was refused: forbidden: /);
    await forbidden.ends(1);
    const good = terminal(lab, ['-', 'lobby', node.url], { HUBBUB_TOKEN: token({ sub: 'ann' }) });
    await good.prints(/in lobby with 1 user/);
    good.child.stdin.write('hello\n');
    await good.prints(/ann: hello/);
    good.child.stdin.end();
    await good.ends(0);
});
