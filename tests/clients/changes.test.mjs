// Messages that change, in the example page accounts-chat.html: two users, each in a page.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { DEADLINE_MS, eventually, scenario } from './harness.mjs';
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

        // Missed while the page is not connected.
        await bob.run('socket.disconnect(), undefined');
        await press(ann, 'second', 'Edit');
        await fill(ann, 'edit', { content: 'third' });
        await shows(ann, /third/);
        await fill(ann, 'send', { content: 'short-lived' });
        await press(ann, 'short-lived', 'Delete');
        await shows(ann, /This message was deleted/);
        await bob.run('socket.connect(), undefined');
        await shows(bob, /third/);
        await fill(ann, 'send', { content: 'the end' });
        await shows(bob, /the end/);
        assert.doesNotMatch(await bob.run('document.body.innerText'), /short-lived|second/);

        await press(ann, 'third', 'Delete');
        for (const page of [ann, bob]) {
            await shows(page, /This message was deleted/);
            assert.equal(await page.run('document.documentElement.scrollWidth'), width);
        }
        await screenshot(ann, `changes-${width}.png`);
    });
}
