// Only pages of allowed origins can connect, by polling and by the WebSocket upgrade.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';
import { scenario, SECRET } from './harness.mjs';

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

scenario('in open mode every origin is allowed, without credentials', async (lab) => {
    const node = await lab.node();
    await expectOrigins(node, [
        [undefined, true],
        ['https://app.example.com', true],
    ]);
    const polled = await node.get(OPEN, { origin: 'https://app.example.com' });
    assert.equal(polled.headers.get('access-control-allow-origin'), '*');
    assert.equal(polled.headers.get('access-control-allow-credentials'), null);
});
