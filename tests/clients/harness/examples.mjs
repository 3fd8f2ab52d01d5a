// Pages of docs/examples in a headless browser.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DEADLINE_MS, eventually } from './wait.mjs';

export const EXAMPLES = fileURLToPath(new URL('../../../docs/examples', import.meta.url));
export const LIBRARY = fileURLToPath(new URL('../node_modules/socket.io-client-v4', import.meta.url));
const LIBRARY_URL = '/node_modules/socket.io-client/dist/';
/** The width of a small phone, in CSS pixels. */
export const PHONE_WIDTH = 360;

/** Serves the examples, as `npm run page` does. `library: false` is a folder without `npm install`. */
export async function serveExamples(lab, { library = true } = {}) {
    const server = createServer((request, response) => {
        const { pathname } = new URL(request.url, 'http://localhost');
        const file = pathname.startsWith(LIBRARY_URL)
            ? library && path.join(LIBRARY, 'dist', path.basename(pathname))
            : path.join(EXAMPLES, pathname);
        if (!file || !existsSync(file)) return response.writeHead(404).end();
        const type = file.endsWith('.js') ? 'text/javascript' : 'text/html';
        response.setHeader('content-type', type).end(readFileSync(file));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    lab.clients.push({ close: () => server.close() });
    return `http://127.0.0.1:${server.address().port}`;
}

/** Opens a page on a phone's screen, or on one of that width. */
export async function openPage(lab, url, query = {}, width = PHONE_WIDTH) {
    const browser = await lab.browser();
    const page = await browser.page();
    const screen = { width, height: 740, deviceScaleFactor: 1, mobile: width === PHONE_WIDTH };
    await browser.call('Emulation.setDeviceMetricsOverride', screen, page.sessionId);
    await page.open(`${url}?${new URLSearchParams(query)}`);
    await eventually(
        () => page.run(`document.readyState === 'complete'`),
        DEADLINE_MS,
        'the page is loaded',
    );
    return page;
}

export async function shows(page, pattern) {
    let text;
    await eventually(
        async () => pattern.test((text = await page.run('document.body.innerText'))),
        DEADLINE_MS,
        `the page shows ${pattern}`,
    ).catch((error) => assert.fail(`${error.message}; it shows:\n${text}`));
}
