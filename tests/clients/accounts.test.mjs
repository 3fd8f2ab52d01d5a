// The example page accounts-chat.html: accounts and direct chats as users of a browser have them.

import assert from 'node:assert/strict';
import { DEADLINE_MS, eventually, scenario, SECRET } from './harness.mjs';
import { openPage, PHONE_WIDTH, serveExamples, shows } from './harness/examples.mjs';

const PASSWORD = 'correct horse';
const DESKTOP_WIDTH = 1000;
const XSS = '<img src=x onerror="window.hacked=1">';

const until = (page, expression, ms = DEADLINE_MS) =>
    eventually(() => page.run(expression), ms, expression);

/** Types into the element that has the focus, and presses Enter. */
async function type(page, text) {
    const call = (method, params) => page.browser.call(method, params, page.sessionId);
    await call('Input.insertText', { text });
    const key = { key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' };
    await call('Input.dispatchKeyEvent', { type: 'keyDown', ...key });
    await call('Input.dispatchKeyEvent', { type: 'keyUp', ...key });
}

const fill = (page, form, values) =>
    page.run(`{
        const form = document.getElementById('${form}');
        for (const [name, value] of Object.entries(${JSON.stringify(values)})) {
            form.elements[name].value = value;
        }
        form.requestSubmit();
    }`);

const isVisible = (page, id) => page.run(`document.getElementById('${id}').offsetHeight > 0`);
const isConnected = (page) => until(page, 'socket?.connected === true');

/** Opens the page. Each site is an origin of its own, so it has a session of its own. */
const open = (lab, site, node, width) =>
    openPage(lab, `${site}/accounts-chat.html`, { url: node.url }, width);

/** Opens the page of a new user and creates the account. */
async function signUp(lab, node, username, { display_name = '', site, width } = {}) {
    site ??= await serveExamples(lab);
    const page = await open(lab, site, node, width);
    await until(page, `document.activeElement.name === 'login'`);
    await page.run(`document.querySelector('[data-show=signup]').click()`);
    const email = `${username}@example.com`;
    await fill(page, 'signup', { email, username, display_name, password: PASSWORD });
    await isConnected(page);
    return Object.assign(page, { site });
}

/** Finds a user and opens the chat with that user, by the keyboard alone. */
async function openChat(page, name) {
    await page.run(`document.getElementById('query').focus()`);
    await type(page, name);
    await until(page, `document.activeElement.closest('#found') !== null`);
    await type(page, '');
    await until(page, `document.activeElement.name === 'content'`);
    await isJoined(page);
}

const isJoined = (page) => until(page, 'shown?.joined === true');

const openListed = async (page, name) => {
    const find = `[...document.querySelectorAll('#chats button')]
        .find((button) => button.innerText.includes(${JSON.stringify(name)}))`;
    await until(page, `${find} !== undefined`);
    await page.run(`${find}.click()`);
    await isJoined(page);
};

/** The contents of the messages of the open chat, in the order of the page. */
const contents = (page) =>
    page.run(`[...document.querySelectorAll('#log .message')].map((line) => line.childNodes[1].data)`);

async function fits(page, width) {
    assert.equal(await page.run('document.documentElement.scrollWidth'), width);
}

scenario('two users sign up, find each other and talk', async (lab) => {
    const node = await lab.node();
    const ann = await signUp(lab, node, 'ann', { display_name: XSS });
    const bob = await signUp(lab, node, 'bob', { width: DESKTOP_WIDTH });
    await openChat(ann, 'bob');
    await shows(ann, /Nobody else is here now|Here now: bob/);
    // The chat appears on the other page without a request of its user.
    await openListed(bob, XSS);
    await shows(ann, /Here now: bob/);
    await type(ann, 'hello <b>bob</b>');
    await shows(bob, /hello <b>bob<\/b>/);
    await type(bob, 'hello ann, here is a longer text that has to break into several lines');
    await shows(ann, /hello ann/);
    await type(bob, 'x'.repeat(300));
    await shows(ann, /xxx/);
    for (const page of [ann, bob]) {
        const [first, second] = await contents(page);
        assert.deepEqual([first, second.slice(0, 9)], ['hello <b>bob</b>', 'hello ann']);
    }
    // A name that contains markup is text: found, in the list, as the title, present and at messages.
    await fill(bob, 'search', { q: 'ann' });
    await shows(bob, /@ann/);
    const text = await bob.run('document.body.innerText');
    assert.equal(text.split(XSS).length - 1, 5, text);
    assert.equal(await bob.run(`document.querySelectorAll('img, b').length`), 0);
    assert.equal(await bob.run('window.hacked ?? null'), null);
    await fits(ann, PHONE_WIDTH);
    await fits(bob, DESKTOP_WIDTH);
    await bob.run(`document.querySelector('#found button').click()`);

    // Back in the list the chat is marked when a message arrives.
    await ann.run(`document.getElementById('back').click()`);
    await until(ann, `document.activeElement.closest('#chats') !== null`);
    await type(bob, 'are you there?');
    await until(ann, `document.querySelector('#chats li.new') !== null`);
    await shows(ann, /are you there\?/);
    await fits(ann, PHONE_WIDTH);

    // A reload needs no login.
    await open(lab, ann.site, node).then((tab) => openListed(tab, 'bob'));
});

scenario('a refused login or sign-up names its cause', async (lab) => {
    const node = await lab.node();
    const site = await serveExamples(lab);
    const page = await open(lab, site, node);
    await fill(page, 'login', { login: 'ann', password: 'wrong' });
    await until(page, `document.getElementById('problem').textContent !== ''`);
    assert.ok(await isVisible(page, 'login'));
    await fits(page, PHONE_WIDTH);
    await page.run(`document.querySelector('[data-show=signup]').click()`);
    const account = { email: 'ann@example.com', password: PASSWORD };
    await fill(page, 'signup', { ...account, username: 'a b' });
    await shows(page, /username must/);
    assert.equal(await page.run('document.activeElement.name'), 'username');
    await fill(page, 'signup', { ...account, username: 'ann' });
    await isConnected(page);
    const down = await openPage(lab, `${site}/accounts-chat.html`, { url: 'http://127.0.0.1:9' });
    await fill(down, 'login', { login: 'ann', password: PASSWORD });
    await shows(down, /No answer from http:\/\/127\.0\.0\.1:9/);
});

scenario('in jwt mode the page works from an origin that is listed', async (lab) => {
    const site = await serveExamples(lab);
    const node = await lab.node({ JWT_SECRET: SECRET, ALLOWED_ORIGINS: site });
    const ann = await signUp(lab, node, 'ann', { site });
    const tab = await open(lab, site, node);
    await isConnected(tab);
    // A newer token prolongs the connection of every tab.
    const used = JSON.stringify(await ann.run('session.refresh_token'));
    await tab.run('refresh(session).then(() => {})');
    await until(ann, `session.refresh_token !== ${used}`);
    const answer = await ann.run(`socket.emitWithAck('join', { room_id: 'lobby' })`);
    assert.equal(answer.ok, true);
    const refused = await open(lab, await serveExamples(lab), node);
    await fill(refused, 'login', { login: 'ann', password: PASSWORD });
    await shows(refused, /No answer from .* refuses pages of the origin .*ALLOWED_ORIGINS/);
});

scenario('after kill -9 and a restart of the node nothing is lost or shown twice', async (lab) => {
    let node = await lab.node();
    const ann = await signUp(lab, node, 'ann');
    const bob = await signUp(lab, node, 'bob');
    await openChat(ann, 'bob');
    await openListed(bob, 'ann');
    const expected = [];
    const send = async (page, text) => {
        expected.push(text);
        await fill(page, 'send', { content: text });
    };
    for (let round = 0; round < 2; round++) {
        for (let number = 0; number < 15; number++) {
            await send(ann, `ann ${round}.${number}`);
            await send(bob, `bob ${round}.${number}`);
        }
        // The acknowledgement of the last message is lost, so the page sends it again.
        await until(ann, 'outbox.length === 0');
        await ann.run(`socket.onack = () => {}`);
        await send(ann, `ann ${round} unacknowledged`);
        for (const page of [ann, bob]) await shows(page, new RegExp(`ann ${round} unack`));
        await node.kill();
        await ann.run('delete socket.onack, undefined');
        for (const page of [ann, bob]) await shows(page, /Trying again/);
        await send(ann, `ann ${round} meanwhile`);
        await send(bob, `bob ${round} meanwhile`);
        await shows(ann, /Sending…/);
        node = await lab.restart(node);
        for (const page of [ann, bob]) {
            await until(page, 'outbox.length === 0 && shown.joined');
        }
    }
    // More is missed than a first visit shows.
    await ann.run('socket.disconnect(), undefined');
    for (let number = 0; number < 60; number++) await send(bob, `bob missed.${number}`);
    await until(bob, 'outbox.length === 0');
    await ann.run('socket.connect(), undefined');
    await shows(ann, /bob missed\.59/);
    // The last message of each page comes after everything else that it sent.
    await send(ann, 'the end of ann');
    await send(bob, 'the end of bob');
    for (const page of [ann, bob]) {
        await shows(page, /the end of ann/);
        await shows(page, /the end of bob/);
    }
    const [one, other] = [await contents(ann), await contents(bob)];
    assert.deepEqual(one, other);
    assert.deepEqual([...one].sort(), [...expected].sort());
    for (const name of ['ann', 'bob']) {
        const of = (text) => text.includes(name);
        assert.deepEqual(one.filter(of), expected.filter(of));
    }
    assert.doesNotMatch(await ann.run('document.body.innerText'), /may be missing|Sending…/);
});

/** Records the time at which the form to log in is shown next. */
const watchForm = (page) =>
    page.run(`{
        window.formShownAt = null;
        new MutationObserver(() => {
            if (!document.getElementById('enter').hidden) window.formShownAt ??= Date.now();
        }).observe(document.getElementById('enter'), { attributes: true });
    }`);

scenario('the end of a session shows the form to log in on all its pages within a second', async (lab) => {
    const node = await lab.node();
    const ann = await signUp(lab, node, 'ann');
    const tab = await open(lab, ann.site, node);
    await isConnected(tab);
    // Another device of the same user: another session.
    const device = await open(lab, await serveExamples(lab), node);
    await fill(device, 'login', { login: 'ann', password: PASSWORD });
    await isConnected(device);

    await watchForm(tab);
    const clickedAt = await ann.run(`document.getElementById('logout').click(), Date.now()`);
    await until(ann, `document.activeElement.name === 'login'`);
    await until(tab, 'window.formShownAt !== null');
    const took = (await tab.run('window.formShownAt')) - clickedAt;
    assert.ok(took < 1000, `${took} ms`);
    assert.equal(await ann.run('localStorage.length'), 0);
    assert.equal(await device.run('socket.connected && session !== null'), true);

    // Logged in again in one tab, the other one follows.
    await fill(tab, 'login', { login: 'ann@example.com', password: PASSWORD });
    await isConnected(tab);
    await isConnected(ann);

    // Ended from the other device: no other tab shares its storage, the node notifies the pages.
    for (const page of [ann, tab]) await watchForm(page);
    const endedAt = await device.run(`(async () => {
        const { items } = await api('GET', '/auth/sessions');
        const at = Date.now();
        await Promise.all(items.filter(({ current }) => !current)
            .map(({ id }) => api('DELETE', '/auth/sessions/' + id)));
        return at;
    })()`);
    for (const page of [ann, tab]) {
        await until(page, 'window.formShownAt !== null');
        const after = (await page.run('window.formShownAt')) - endedAt;
        assert.ok(after < 1000, `${after} ms`);
        assert.ok(await isVisible(page, 'login'));
    }
    assert.equal(await device.run('socket.connected && session !== null'), true);

    // A page that was not connected when its session ended learns of it from the refusal.
    await device.run(`(async () => {
        const { id } = session;
        const { access_token } = await validTokens();
        socket.disconnect();
        await request('DELETE', '/auth/sessions/' + id, undefined, access_token);
        socket.connect();
    })()`);
    await until(device, `document.activeElement.name === 'login'`);
    await shows(device, /The session has ended/);
});

/** The requests for new tokens that the pages have sent. */
const refreshes = async (pages) => {
    const sent = `performance.getEntriesByType('resource')
        .filter(({ name }) => name.endsWith('/auth/refresh')).length`;
    const counts = await Promise.all(pages.map((page) => page.run(sent)));
    return counts.reduce((sum, count) => sum + count, 0);
};

scenario('tabs that refresh at once stay logged in', async (lab) => {
    const node = await lab.node();
    const ann = await signUp(lab, node, 'ann');
    await openChat(await signUp(lab, node, 'bob'), 'ann');
    const tabs = [ann];
    while (tabs.length < 4) tabs.push(await open(lab, ann.site, node));
    for (const tab of tabs) await openListed(tab, 'bob');
    // Returns the number of different successors.
    const refreshAll = async () => {
        const used = await ann.run('({ id: session.id, refresh_token: session.refresh_token })');
        const five = `Promise.all(Array.from({ length: 5 }, async () =>
            (await refresh(${JSON.stringify(used)})).refresh_token))`;
        const tokens = (await Promise.all(tabs.map((tab) => tab.run(five)))).flat();
        assert.equal(tokens.length, 20);
        assert.ok(!tokens.includes(used.refresh_token));
        return new Set(tokens).size;
    };
    const allAreIn = async (text) => {
        await fill(ann, 'send', { content: text });
        for (const tab of tabs) {
            await shows(tab, new RegExp(text));
            assert.equal(await tab.run('socket.connected && session !== null'), true);
            const { username } = await tab.run(`api('GET', '/me')`);
            assert.equal(username, 'ann');
        }
        const { items } = await ann.run(`api('GET', '/auth/sessions')`);
        assert.equal(items.length, 1);
    };
    // The lock: one request for all of them.
    assert.equal(await refreshAll(), 1);
    assert.equal(await refreshes(tabs), 1);
    await allAreIn('after one');

    // Without the lock: the node's grace window.
    for (const tab of tabs) {
        await tab.run(`Object.defineProperty(navigator, 'locks', { value: undefined })`);
    }
    assert.equal(await refreshAll(), 1);
    assert.ok((await refreshes(tabs)) > 2);
    await allAreIn('after many');

    // The answer is lost: the same tokens come with the next attempt.
    await ann.run(`{
        const send = window.fetch;
        window.fetch = async (...request) => {
            await send(...request);
            window.fetch = send;
            throw new TypeError('lost');
        };
    }`);
    const replaced = await ann.run(`(async () => {
        const used = session;
        return (await refresh(used)).refresh_token !== used.refresh_token;
    })()`);
    assert.ok(replaced);
    await allAreIn('after a loss');

    // A token that the node refuses is replaced when the page connects.
    await ann.run(`localStorage.setItem(SESSION_KEY, JSON.stringify({ ...session, access_token: 'x.y.z' }))`);
    const late = await open(lab, ann.site, node);
    await openListed(late, 'bob');
    await shows(late, /after a loss/);
});
