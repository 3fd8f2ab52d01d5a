// A headless Chromium, driven by the DevTools protocol: pages, and what runs in them.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import WebSocket from 'ws';
import { within } from './harness.mjs';

/** How long the browser may take to start, or a page to answer, in ms: it is large, and the machine may be busy. */
const PATIENCE = 30_000;

export class Browser {
    /** Starts one that keeps its profile in `directory`. */
    static async start(directory) {
        const browser = new Browser();
        // No sandbox: tests run as root in containers, and open nothing but their own pages.
        browser.process = spawn(
            process.env.CHROMIUM ?? 'chromium',
            [
                '--headless',
                '--no-sandbox',
                '--disable-gpu',
                '--disable-dev-shm-usage',
                '--no-first-run',
                '--disable-extensions',
                '--disable-background-networking',
                '--remote-debugging-port=0',
                `--user-data-dir=${directory}`,
                'about:blank',
            ],
            { stdio: ['ignore', 'ignore', 'pipe'] },
        );
        process.on('exit', () => browser.process.kill('SIGKILL'));
        // Not 'exit': its helpers write into the profile until they see that it is gone, and hold its stderr as long.
        browser.exited = once(browser.process, 'close');
        const told = new Promise((resolve, reject) => {
            let text = '';
            browser.process.on('error', reject);
            browser.process.stderr.setEncoding('utf8').on('data', (part) => {
                text += part;
                const found = /DevTools listening on (ws:\S+)/.exec(text);
                if (found) resolve(found[1]);
            });
            browser.exited.then(() => reject(new Error(`chromium ended:\n${text}`)));
        });
        browser.link = new WebSocket(await within(PATIENCE, 'chromium starts', told));
        browser.waiting = new Map();
        browser.link.on('message', (data) => {
            const { id, result, error } = JSON.parse(data);
            const waiter = browser.waiting.get(id);
            browser.waiting.delete(id);
            if (error) waiter?.reject(new Error(error.message));
            else waiter?.resolve(result);
        });
        browser.next = 0;
        await once(browser.link, 'open');
        return browser;
    }

    /** A command of the DevTools protocol, and its result. */
    call(method, params = {}, sessionId) {
        const id = this.next++;
        const answered = new Promise((resolve, reject) =>
            this.waiting.set(id, { resolve, reject }),
        );
        this.link.send(JSON.stringify({ id, method, params, sessionId }));
        return within(PATIENCE, method, answered);
    }

    async page() {
        const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
        const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
        return new Page(this, sessionId);
    }

    async kill() {
        this.link?.terminate();
        this.process.kill('SIGKILL');
        await this.exited;
    }
}

class Page {
    constructor(browser, sessionId) {
        Object.assign(this, { browser, sessionId });
    }

    async open(url) {
        const { errorText } = await this.browser.call('Page.navigate', { url }, this.sessionId);
        assert.equal(errorText, undefined, `${url}: ${errorText}`);
    }

    /** Evaluates JavaScript in the page; waits for what it promises, and gives it as JSON does. */
    async run(expression) {
        const { result, exceptionDetails } = await this.browser.call(
            'Runtime.evaluate',
            { expression, awaitPromise: true, returnByValue: true },
            this.sessionId,
        );
        assert.equal(exceptionDetails, undefined, JSON.stringify(exceptionDetails));
        return result.value;
    }
}
