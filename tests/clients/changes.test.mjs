// Messages that change, in the example page accounts-chat.html: two users, each in a page.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { DEADLINE_MS, eventually, scenario, UNLIMITED } from './harness.mjs';
import { openPage, serveExamples, shows } from './harness/examples.mjs';

const TARGET = new URL('../../target/', import.meta.url);

const until = (page, expression) => eventually(() => page.run(expression), DEADLINE_MS, expression);

const fill = (page, form, values) =>
    page.run(`{
        const form = document.getElementById('${form}');
        for (const [name, value] of Object.entries(${JSON.stringify(values)})) {
            form.elements[name].value = value;
        }
        form.requestSubmit();
    }`);

async function signUp(lab, node, username, width) {
    const page = await openPage(
        lab,
        `${await serveExamples(lab)}/accounts-chat.html`,
        { url: node.url },
        width,
    );
    await until(page, `document.activeElement.name === 'login'`);
    const email = `${username}@example.com`;
    await fill(page, 'signup', { email, username, display_name: '', password: 'correct horse' });
    await until(page, 'socket?.connected === true');
    return page;
}

/** Clicks a button of the message that contains `text`. */
async function press(page, text, label) {
    const find = `[...document.querySelectorAll('#log .message')]
        .find((line) => line.textContent.includes(${JSON.stringify(text)}))
        ?.querySelector('button[aria-label^=${JSON.stringify(label)}]')`;
    await until(page, `Boolean(${find})`);
    await page.run(`${find}.click()`);
}

/** Two pages of two users, whose chat is open in both. */
async function openChat(lab, node, width) {
    const ann = await signUp(lab, node, 'ann', width);
    const bob = await signUp(lab, node, 'bob', width);
    await fill(ann, 'search', { q: 'bob' });
    await until(ann, `document.querySelector('#found button') !== null`);
    await ann.run(`document.querySelector('#found button').click()`);
    await until(ann, 'shown?.joined === true');
    await until(bob, `document.querySelector('#chats button') !== null`);
    await bob.run(`document.querySelector('#chats button').click()`);
    await until(bob, 'shown?.joined === true');
    return [ann, bob];
}

/** What the log shows: for each message its text, and its marks. */
const log = (page) =>
    page.run(`[...document.querySelectorAll('#log .message')].map((line) => [
        line.childNodes[1].data ?? line.childNodes[1].textContent,
        ...[...line.querySelectorAll('.mark')].map((mark) => mark.textContent),
    ].join(' '))`);

const DELETED = 'This message was deleted.';

async function screenshot(page, name) {
    const { data } = await page.browser.call('Page.captureScreenshot', {}, page.sessionId);
    mkdirSync(TARGET, { recursive: true });
    writeFileSync(new URL(name, TARGET), Buffer.from(data, 'base64'));
}

for (const width of [390, 1280]) {
    scenario(`changes of messages are shown to both users, ${width} px wide`, async (lab) => {
        const node = await lab.node();
        const ann = await signUp(lab, node, 'ann', width);
        const bob = await signUp(lab, node, 'bob', width);
        await fill(ann, 'search', { q: 'bob' });
        await until(ann, `document.querySelector('#found button') !== null`);
        await ann.run(`document.querySelector('#found button').click()`);
        await until(ann, 'shown?.joined === true');

        // The badge of a chat that is not open.
        await fill(ann, 'send', { content: 'first' });
        const badge = `document.querySelector('#chats .badge')?.textContent`;
        await until(bob, `${badge} === '1'`);
        await bob.run(`document.querySelector('#chats button').click()`);
        await until(bob, `shown?.joined === true && ${badge} === undefined`);

        await bob.run(`{
            const { content } = document.getElementById('send').elements;
            content.value = 'r';
            content.dispatchEvent(new Event('input', { bubbles: true }));
        }`);
        await shows(ann, /Typing: bob/);
        await fill(bob, 'send', { content: 'answer' });
        await until(ann, `document.getElementById('typing').textContent === ''`);

        await press(bob, 'first', 'React with 👍');
        await shows(ann, /👍 1/);
        await press(bob, 'first', 'React with 👍');
        await until(ann, `!document.getElementById('log').textContent.includes('👍 1')`);

        await press(ann, 'first', 'Edit');
        await fill(ann, 'edit', { content: 'second' });
        for (const page of [ann, bob]) await shows(page, /\(edited\)\s*second/);

        await press(bob, 'second', 'Open the thread');
        await fill(bob, 'send', { content: 'a reply' });
        await shows(ann, /Replies: 1/);
        await bob.run(`document.getElementById('leave-thread').click()`);

        await press(bob, 'second', 'Pin');
        for (const page of [ann, bob]) await shows(page, /\(pinned\)\s*second/);
        await press(ann, 'second', 'Unpin');
        for (const page of [ann, bob]) {
            await until(page, `!document.getElementById('log').textContent.includes('(pinned)')`);
        }

        // Missed while the page is not connected.
        await bob.run('socket.disconnect(), undefined');
        await press(ann, 'second', 'Edit');
        await fill(ann, 'edit', { content: 'third' });
        await shows(ann, /third/);
        await press(ann, 'third', 'Pin');
        await fill(ann, 'send', { content: 'short-lived' });
        await press(ann, 'short-lived', 'Delete');
        await shows(ann, /This message was deleted/);
        await bob.run('socket.connect(), undefined');
        await shows(bob, /third/);
        await fill(ann, 'send', { content: 'the end' });
        await shows(bob, /the end/);
        assert.doesNotMatch(await bob.run('document.body.innerText'), /short-lived|second/);
        const expected = ['third (edited) (pinned)', 'answer', 'a reply', DELETED, 'the end'];
        for (const page of [ann, bob]) assert.deepEqual(await log(page), expected);
        assert.match(await bob.run('document.getElementById("log").innerText'), /ann\s*\d\d:\d\d.*\s*This message was/);

        await press(ann, 'third', 'Delete');
        for (const page of [ann, bob]) {
            await shows(page, /This message was deleted/);
            assert.equal(await page.run('document.documentElement.scrollWidth'), width);
        }
        await screenshot(ann, `changes-${width}.png`);
    });
}

/** Sends requests of the open chat without waiting, and waits for the answers. */
const sendMany = (page, count, event, body) =>
    page.run(`Promise.all(Array.from({ length: ${count} }, (_, number) =>
        socket.emitWithAck('${event}', { room_id: shown.info.room_id, ...(${body})(number) })
    )).then((answers) => answers.filter(({ ok }) => !ok))`);

for (const width of [390, 1280]) {
    scenario(`after a long absence the page shows the newest history, ${width} px wide`, async (lab) => {
        const node = await lab.node(UNLIMITED);
        const [ann, bob] = await openChat(lab, node, width);
        for (const text of ['one', 'two', 'three']) await fill(ann, 'send', { content: text });
        for (const page of [ann, bob]) await shows(page, /three/);
        await press(bob, 'three', 'Pin');
        await press(bob, 'three', 'React with 👍');
        await shows(ann, /👍 1/);

        // More changes than a replay has. The first ones are in the history only.
        await bob.run('socket.disconnect(), undefined');
        await press(ann, 'one', 'Edit');
        await fill(ann, 'edit', { content: 'uno' });
        await shows(ann, /uno/);
        await press(ann, 'uno', 'Pin');
        await shows(ann, /\(pinned\)\s*uno/);
        await press(ann, 'two', 'Delete');
        await shows(ann, /This message was deleted/);
        const target = `{ id: shown.lines[2].id }`;
        for (const event of ['unpin_message', 'pin_message', 'unpin_message']) {
            assert.deepEqual(await sendMany(ann, 1, event, `() => (${target})`), []);
        }
        const texts = Array.from({ length: 150 }, (_, number) => `missed ${number}`);
        const refused = await sendMany(ann, 150, 'message', '(number) => ({ content: `missed ${number}` })');
        assert.deepEqual(refused, []);
        const edits = `(number) => ({ id: shown.lines[3 + number].id, content: 'missed ' + number + '!' })`;
        await until(ann, 'shown.lines.length === 153');
        assert.deepEqual(await sendMany(ann, 100, 'edit_message', edits), []);
        await until(ann, `document.body.innerText.includes('missed 99!')`);
        await bob.run('socket.connect(), undefined');
        const after = texts.map((text, number) => (number < 100 ? `${text}! (edited)` : text));
        const expected = ['uno (edited) (pinned)', DELETED, 'three', ...after];
        await until(bob, `document.querySelectorAll('#log .message').length === 153`);
        for (const page of [ann, bob]) {
            assert.deepEqual(await log(page), expected);
            assert.equal(await page.run('document.documentElement.scrollWidth'), width);
        }
        await shows(bob, /👍 1/);
        await bob.run(`document.getElementById('scroll').scrollTop = 0`);
        await screenshot(bob, `history-${width}.png`);
        // A page that is opened now shows the same.
        await bob.open(await bob.run('location.href'));
        await until(bob, `document.querySelector('#chats button') !== null`);
        await bob.run(`document.querySelector('#chats button').click()`);
        await until(bob, `document.querySelectorAll('#log .message').length === 153`);
        assert.deepEqual(await log(bob), expected);

        // Messages in a chat that is not open: the badge counts them all, by few requests.
        await bob.run('showChat(null), performance.clearResourceTimings()');
        assert.deepEqual(await sendMany(ann, 40, 'message', '() => ({ content: `new` })'), []);
        await until(bob, `document.querySelector('#chats .badge')?.textContent === '40'`);
        const requests = `performance.getEntriesByType('resource')
            .filter(({ name }) => name.endsWith('/me/unread')).length`;
        const sent = await bob.run(requests);
        assert.ok(sent >= 1 && sent <= 5, `${sent} requests`);
        await screenshot(bob, `badge-${width}.png`);
    });
}
