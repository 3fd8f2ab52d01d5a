// The official clients' bundles in Chromium: the differences between a browser and Node. A browser
// checks origins, and ends a WebSocket whose offered subprotocols the server does not answer.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import {
    DEADLINE_MS,
    eventually,
    hasAuth,
    inHandshake,
    scenario,
    SECRET,
    token,
    TRANSPORTS,
    VERSIONS,
} from './harness.mjs';

/** The package of each version, by the end of its name. */
const BUNDLES = { '1.7': 'v1', '2.5': 'v2', '3.1': 'v3', '4.0': 'v40', '4.8': 'v4' };

/** Serves a page for each version, which loads its bundle from the same origin. */
async function pages(t) {
    const server = createServer((request, response) => {
        const [, version, script] = request.url.split('/');
        const path = `node_modules/socket.io-client-${BUNDLES[version]}/dist/socket.io.js`;
        response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
        response.end(
            script
                ? readFileSync(new URL(path, import.meta.url))
                : `<!doctype html><script src="/${version}/client.js"></script>`,
        );
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    return `http://127.0.0.1:${server.address().port}`;
}

/** Connects a client in the page as `socket`, with its events in `seen`. */
const connect = (url, options) => `
    window.seen = [];
    window.socket = io('${url}', ${JSON.stringify({ forceNew: true, ...options })});
    for (const event of ['connect', 'disconnect', 'connect_error', 'error', 'authenticated', 'message'])
        socket.on(event, (data) => seen.push([event, data instanceof Error ? data.message : data]));
    window.ack = (event, payload) => new Promise((done) => socket.emit(event, payload, done));
    window.of = (event) => seen.filter(([name]) => name === event).map(([, data]) => data);`;

for (const version of VERSIONS) {
    scenario(`Chromium, client ${version}: chat and tokens over every transport`, async (lab, t) => {
        const origin = await pages(t);
        const open = await lab.node({ ALLOWED_ORIGINS: origin });
        const jwt = await lab.node({ ALLOWED_ORIGINS: origin, JWT_SECRET: SECRET });
        const page = await (await lab.browser()).page();
        await page.open(`${origin}/${version}/`);
        await eventually(() => page.run(`typeof io === 'function'`), DEADLINE_MS, 'the bundle');
        const until = (expression) =>
            eventually(() => page.run(expression), DEADLINE_MS, `${version}: ${expression}`);

        for (const [name, transports] of Object.entries(TRANSPORTS)) {
            // Version 1 has no such option, and 2 reads it from the transport's options.
            const protocols = ['chat.v1', 'chat.v0'];
            await page.run(
                connect(open.url, {
                    transports,
                    protocols,
                    transportOptions: { websocket: { protocols } },
                }),
            );
            await until(`of('connect').length === 1`);
            const transport = transports.at(-1);
            await until(`socket.io.engine.transport.name === '${transport}'`);
            if (transport === 'websocket' && version !== '1.7') {
                assert.equal(await page.run('socket.io.engine.transport.ws.protocol'), 'chat.v1');
            }
            const request = (event, payload) =>
                page.run(`ack('${event}', ${JSON.stringify(payload)})`);
            assert.equal((await request('authenticate', { user_id: 'ada' })).ok, true);
            assert.equal((await request('join', { room_id: name })).ok, true);
            assert.equal((await request('message', { room_id: name, content: 'hi' })).seq, 1);
            await until(`of('message').length === 1`);
            const refusal = await page.run(
                `ack('message', { room_id: '${name}', payload: new Uint8Array(200).buffer })`,
            );
            assert.equal(refusal.code, 'bad_request');
            assert.equal((await request('message', { room_id: name, content: 'hi' })).seq, 2);
            assert.deepEqual(await page.run(`of('disconnect')`), []);
            await page.run('void socket.close()');

            await page.run(
                connect(jwt.url, { transports, ...inHandshake(version, token({ sub: 'ada' })) }),
            );
            await until(`of('authenticated').length === 1`);
            await page.run('void socket.close()');
            const forged = token({ sub: 'ada' }, { secret: 'another-secret' });
            await page.run(connect(jwt.url, { transports, ...inHandshake(version, forged) }));
            const event = hasAuth(version) ? 'connect_error' : 'error';
            await until(`of('${event}').length === 1`);
            const [text] = await page.run(`of('${event}')`);
            assert.match(text, /^unauthorized: /);
            await page.run('void socket.close()');
        }
    });
}
