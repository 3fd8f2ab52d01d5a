// A headless Chromium, controlled through the DevTools protocol.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import WebSocket from 'ws';
import { within } from './wait.mjs';

/**
 * The time limit of each command, in ms. Chromium is large and takes long to start, and the machine
 * may be busy.
 */
const COMMAND_TIMEOUT_MS = 30_000;

export class Browser {
    /** Starts a browser with its profile in `directory`. */
    static async start(directory) {
        const browser = new Browser();
        // No sandbox, because tests run as root in containers. They open only their own pages.
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
        // 'close' and not 'exit': the helper processes write into the profile until they notice the
        // end of the browser, and keep its stderr open until then.
        browser.exited = once(browser.process, 'close');
        const address = new Promise((resolve, reject) => {
            let text = '';
            browser.process.on('error', reject);
            browser.process.stderr.setEncoding('utf8').on('data', (part) => {
                text += part;
                const found = /DevTools listening on (ws:\S+)/.exec(text);
                if (found) resolve(found[1]);
            });
            browser.exited.then(() => reject(new Error(`chromium ended:\n${text}`)));
        });
        browser.connection = new WebSocket(
            await within(COMMAND_TIMEOUT_MS, 'chromium starts', address),
        );
        browser.waiting = new Map();
        browser.connection.on('message', (data) => {
            const { id, result, error } = JSON.parse(data);
            const waiter = browser.waiting.get(id);
            browser.waiting.delete(id);
            if (error) waiter?.reject(new Error(error.message));
            else waiter?.resolve(result);
        });
        browser.next = 0;
        await once(browser.connection, 'open');
        return browser;
    }

    /** Sends a command of the DevTools protocol and returns its result. */
    call(method, params = {}, sessionId) {
        const id = this.next++;
        const answered = new Promise((resolve, reject) =>
            this.waiting.set(id, { resolve, reject }),
        );
        this.connection.send(JSON.stringify({ id, method, params, sessionId }));
        return within(COMMAND_TIMEOUT_MS, method, answered);
    }

    async page() {
        const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
        const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
        return new Page(this, sessionId);
    }

    async kill() {
        this.connection?.terminate();
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

    /**
     * Evaluates JavaScript in the page. Awaits a promise, and returns the result by value, as JSON
     * does.
     */
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
