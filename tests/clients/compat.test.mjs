// Differences between the versions of the JavaScript client that a server has to bear: the shape of a
// refusal, namespaces, WebSocket subprotocols, and requests to polling with more than one packet.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import {
    assertNoHole,
    DEADLINE_MS,
    eventually,
    hasAuth,
    inHandshake,
    inSeconds,
    Lab,
    SECRET,
    token,
    TRANSPORTS,
    UNLIMITED,
    VERSIONS,
    within,
} from './harness.mjs';

/** The client's own `protocols` option: version 1 offers subprotocols nowhere. */
const hasProtocols = (version) => version >= '2';

/** The arguments of the next call of `event`, exactly as the client gives them to an application. */
const argumentsOf = (socket, event) =>
    within(
        DEADLINE_MS,
        event,
        new Promise((resolve) => socket.once(event, (...args) => resolve(args))),
    );

describe('versions of the JavaScript client', { concurrency: 3, timeout: 120_000 }, () => {
    const lab = new Lab();
    let open;
    let jwt;
    before(async () => {
        [open, jwt] = await Promise.all([lab.node(UNLIMITED), lab.node({ JWT_SECRET: SECRET })]);
    });
    after(() => lab.close());

    for (const version of VERSIONS) {
        for (const [name, transports] of Object.entries(TRANSPORTS)) {
            test(`client ${version}, ${name}: a refusal is text before version 3, then an error with data`, async () => {
                for (const [bad, code, reason] of [
                    [token({ sub: 'ada' }, { secret: 'another' }), 'unauthorized', 'signature'],
                    [token({ sub: 'ada', exp: inSeconds(-60) }), 'token_expired', 'expired'],
                ]) {
                    const { socket } = lab.client(version, jwt, {
                        transports,
                        ...inHandshake(version, bad),
                    });
                    if (hasAuth(version)) {
                        const [error] = await argumentsOf(socket, 'connect_error');
                        assert.ok(error.message.startsWith(`${code}: `), error.message);
                        assert.deepEqual(error.data, { code, reason });
                    } else {
                        const [error] = await argumentsOf(socket, 'error');
                        assert.equal(typeof error, 'string', JSON.stringify(error));
                        assert.ok(error.startsWith(`${code}: `), error);
                    }
                    socket.close();
                }
            });

            test(`client ${version}, ${name}: another namespace is refused, and the connection stays`, async (t) => {
                const client = lab.client(version, `${open.url}/admin`, { transports });
                const main = client.socket.io.socket('/');
                t.after(() => main.close());
                const event = hasAuth(version) ? 'connect_error' : 'error';
                const [error] = await argumentsOf(client.socket, event);
                assert.equal(hasAuth(version) ? error.message : error, 'Invalid namespace');
                assert.equal(client.socket.connected, false);

                const user_id = `admin ${version} ${name}`;
                const answer = await within(
                    DEADLINE_MS,
                    'authenticate',
                    new Promise((resolve) => main.emit('authenticate', { user_id }, resolve)),
                );
                assert.deepEqual(answer, { ok: true, user_id, username: user_id });
                assert.equal(client.seen.of('connect_error').length, 1, 'no further attempt');
            });

            if (hasProtocols(version) && name !== 'polling') {
                test(`client ${version}, ${name}: the first offered subprotocol is selected`, async () => {
                    const protocols = ['chat.v1', 'chat.v0'];
                    const client = await lab.user(open, `protocols ${version} ${name}`, {
                        version,
                        transports,
                        protocols,
                        // Version 2 reads them here.
                        transportOptions: { websocket: { protocols } },
                    });
                    await client.upgraded();
                    const { ws } = client.socket.io.engine.transport;
                    assert.equal(ws.protocol, 'chat.v1');
                    await client.join('room of protocols');
                    client.close();
                });
            }

            test(`client ${version}, ${name}: 90 messages of 15 kB sent at once all arrive`, async () => {
                const room_id = `burst ${version} ${name}`;
                const client = await lab.member(open, room_id, room_id, { version, transports });
                const content = 'x'.repeat(15_000);
                // Over polling, all but the first are in one POST, of 1.3 MB; version 4.8 sends several.
                const acks = await Promise.all(
                    Array.from({ length: 90 }, () => client.send(room_id, content)),
                );
                assert.deepEqual(
                    acks.map((ack) => ack.seq),
                    Array.from({ length: 90 }, (_, index) => index + 1),
                );
                await client.seen.next('message', ({ seq }) => seq === 90, DEADLINE_MS);
                assertNoHole(client.received(room_id), 1);
                assert.deepEqual(client.seen.of('disconnect'), []);
                client.close();
            });
        }
    }

    test('events that a client of protocol 3 sends before the answer to its CONNECT are processed', async () => {
        const address = `${open.url.replace('http', 'ws')}/socket.io/?EIO=3&transport=websocket`;
        // As version 4 of the Python client does. Many at once, because it depends on the timing.
        const answers = await Promise.all(
            Array.from({ length: 200 }, async (_, index) => {
                const ws = new WebSocket(address);
                const received = [];
                ws.on('message', (data) => received.push(String(data)));
                ws.on('close', () => received.push('closed'));
                await once(ws, 'open');
                ws.send(`420["authenticate",{"user_id":"early ${index}"}]`);
                ws.send('421["join",{"room_id":"early"}]');
                const last = (text) => text.startsWith('431[') || text === 'closed';
                await eventually(() => received.some(last), DEADLINE_MS, `${received}`);
                ws.terminate();
                return received.find(last);
            }),
        );
        for (const answer of answers) assert.match(answer, /^431\[\{"ok":true/);
    });
});
