// Only pages of allowed origins can connect, by polling and by the WebSocket upgrade.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import WebSocket from 'ws';
import { eventually, scenario, SECRET, VERSIONS } from './harness.mjs';

const OPEN = '/socket.io/?EIO=4&transport=polling';

/** The status of a WebSocket handshake with that `Origin`. */
async function webSocketStatus(node, origin) {
    const ws = new WebSocket(
        `${node.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`,
        { headers: origin ? { origin } : {} },
    );
    try {
        return await Promise.race([
            once(ws, 'open').then(() => 101),
            once(ws, 'unexpected-response').then(([, response]) => response.statusCode),
        ]);
    } finally {
        ws.on('error', () => {});
        ws.terminate();
    }
}

async function preflight(node, route, origin) {
    return node.rest('OPTIONS', route, {
        headers: {
            origin,
            'access-control-request-method': 'POST',
            'access-control-request-headers': 'content-type,authorization',
        },
    });
}

/** Asserts for each origin whether it is accepted, over both transports. */
async function expectOrigins(node, origins) {
    for (const [origin, allowed] of origins) {
        const polled = await node.get(OPEN, origin ? { origin } : {});
        assert.equal(
            polled.status,
            allowed ? 200 : 403,
            `polling from ${origin}: ${JSON.stringify(polled.body)}`,
        );
        assert.equal(
            await webSocketStatus(node, origin),
            allowed ? 101 : 403,
            `WebSocket from ${origin}`,
        );
    }
}

scenario('listed origins and the own origin are accepted, other origins get 403', async (lab) => {
    const node = await lab.node({
        JWT_SECRET: SECRET,
        ALLOWED_ORIGINS: 'https://app.example.com,https://other.example.com:8443',
    });
    await expectOrigins(node, [
        [undefined, true],
        [node.url, true],
        ['https://app.example.com', true],
        ['https://other.example.com:8443', true],
        ['https://evil.example.com', false],
        ['http://app.example.com', false],
        ['https://app.example.com.evil.com', false],
        ['https://app.example.com:444', false],
        ['https://other.example.com', false],
        ['null', false],
    ]);

    const allowed = await node.get(OPEN, { origin: 'https://app.example.com' });
    assert.equal(allowed.headers.get('access-control-allow-origin'), 'https://app.example.com');
    assert.match(allowed.headers.get('vary') ?? '', /origin/i);
    const foreign = await node.get(OPEN, { origin: 'https://evil.example.com' });
    assert.equal(foreign.headers.get('access-control-allow-origin'), null);

    for (const route of ['/socket.io/', '/messages']) {
        const yes = await preflight(node, route, 'https://app.example.com');
        assert.ok([200, 204].includes(yes.status), `${route}: ${yes.status}`);
        assert.equal(
            yes.headers.get('access-control-allow-origin'),
            'https://app.example.com',
            route,
        );
        assert.match(yes.headers.get('access-control-allow-methods') ?? '', /POST|\*/, route);
        assert.match(yes.headers.get('access-control-allow-headers') ?? '', /content-type/i, route);
        assert.match(
            yes.headers.get('access-control-allow-headers') ?? '',
            /authorization/i,
            route,
        );
        const no = await preflight(node, route, 'https://evil.example.com');
        assert.equal(no.headers.get('access-control-allow-origin'), null, route);
    }
});

scenario('in jwt mode no origin is allowed unless it is listed', async (lab) => {
    const node = await lab.node({ JWT_SECRET: SECRET });
    await expectOrigins(node, [
        [undefined, true],
        [node.url, true],
        ['https://app.example.com', false],
    ]);
});

scenario('in open mode every origin is allowed: with credentials on Socket.IO, without on REST', async (lab) => {
    const node = await lab.node();
    await expectOrigins(node, [
        [undefined, true],
        ['https://app.example.com', true],
    ]);
    const origin = 'https://app.example.com';
    const polled = await node.get(OPEN, { origin });
    assert.equal(polled.headers.get('access-control-allow-origin'), origin);
    assert.equal(polled.headers.get('access-control-allow-credentials'), 'true');
    assert.equal(polled.headers.get('vary'), 'Origin');
    const rest = await node.get('/health', { origin });
    assert.equal(rest.headers.get('access-control-allow-origin'), '*');
    assert.equal(rest.headers.get('access-control-allow-credentials'), null);
});

const BUNDLES = {
    '1.7': 'socket.io-client-v1/dist/socket.io.js',
    '2.5': 'socket.io-client-v2/dist/socket.io.js',
    '3.1': 'socket.io-client-v3/dist/socket.io.js',
    '4.0': 'socket.io-client-v40/dist/socket.io.js',
    '4.8': 'socket.io-client-v4/dist/socket.io.js',
};
const TRACING = {
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    baggage: 'sentry-environment=production',
    'sentry-trace': '4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1',
    'x-tenant': 'acme',
};

/** Serves pages of an origin of their own, each with the stock client of one version. */
async function pageServer(lab) {
    const server = createServer((request, response) => {
        const version = request.url.slice(1);
        if (version.endsWith('.js')) {
            const path = new URL(`node_modules/${BUNDLES[version.slice(0, -3)]}`, import.meta.url);
            response.setHeader('content-type', 'text/javascript').end(readFileSync(path));
        } else {
            const script = version in BUNDLES ? `<script src="/${version}.js"></script>` : '';
            response.setHeader('content-type', 'text/html').end(`<!doctype html>${script}`);
        }
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    lab.proxies.push({ close: () => server.close() });
    // Another site than the node's, which is 127.0.0.1.
    return `http://localhost:${server.address().port}`;
}

/** Connects the page's client, and returns the transport over which its first event was answered. */
const connect = (page, node, options) =>
    page.run(`new Promise((done) => {
        const socket = io('${node.url}', { forceNew: true, reconnection: false, ...${JSON.stringify(options)} });
        const failed = (error) => done('failed: ' + error);
        socket.on('connect_error', failed);
        socket.on('error', failed);
        socket.on('connect', () => socket.emit('authenticate', { user_id: 'ann' }, ({ ok }) => {
            const transport = socket.io.engine.transport.name;
            socket.close();
            done(ok ? transport : 'refused');
        }));
    })`);

for (const version of VERSIONS) {
    scenario(
        `a page of another origin connects with the stock client ${version}`,
        async (lab) => {
            const pages = await pageServer(lab);
            const page = await (await lab.browser()).page();
            await page.open(`${pages}/${version}`);
            await eventually(() => page.run('typeof io === "function"'));
            for (const origins of ['*', `https://app.example.com,${pages}`]) {
                const node = await lab.node({ ALLOWED_ORIGINS: origins });
                const extra = { extraHeaders: TRACING };
                for (const options of [
                    {},
                    { withCredentials: true },
                    { withCredentials: false },
                    { ...extra, transportOptions: { polling: extra }, withCredentials: true },
                ]) {
                    for (const transports of [['polling'], ['websocket']]) {
                        assert.equal(
                            await connect(page, node, { ...options, transports }),
                            transports[0],
                            `${origins} ${JSON.stringify(options)}`,
                        );
                    }
                }
            }
            const strict = await lab.node({ ALLOWED_ORIGINS: 'https://app.example.com' });
            for (const transport of ['polling', 'websocket']) {
                assert.match(await connect(page, strict, { transports: [transport] }), /^failed/);
            }
        },
    );
}

scenario('a page of another origin uses REST and reads the id and the time to wait', async (lab) => {
    const pages = await pageServer(lab);
    const page = await (await lab.browser()).page();
    await page.open(`${pages}/`);
    for (const origins of ['*', pages]) {
        const node = await lab.node({ ALLOWED_ORIGINS: origins, MAX_CONNECTIONS: 1 });
        const post = await page.run(`(async () => {
            const response = await fetch('${node.url}/messages', {
                method: 'POST',
                headers: { 'content-type': 'application/json', ...${JSON.stringify(TRACING)} },
                body: JSON.stringify({ room_id: 'den', content: 'hi' }),
            });
            return [response.status, response.headers.get('x-request-id').length];
        })()`);
        assert.deepEqual(post, [201, 32], origins);
        const user = await lab.user(node, 'ann');
        const refused = await page.run(`(async () => {
            const { status, headers } = await fetch('${node.url}${OPEN}', { credentials: 'include' });
            return [status, headers.get('retry-after'), headers.get('x-request-id').length];
        })()`);
        assert.deepEqual(refused, [503, '1', 32], origins);
        user.close();
    }
});
