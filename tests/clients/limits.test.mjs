// Limits: each one is enforced, is reported so that a client can react to it, and its capacity is free
// again when the user of that capacity is gone.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';
import {
    assertNoHole,
    assertRefusal,
    DEADLINE_MS,
    eventually,
    onEachBackplane,
    pause,
    scenario,
    SECRET,
    token,
    TRANSPORTS,
    UNLIMITED,
    VERSIONS,
} from './harness.mjs';

scenario('the number of rooms of a connection is limited', async (lab) => {
    const node = await lab.node({ MAX_ROOMS_PER_SOCKET: 3 });
    const client = await lab.user(node, 'ada');
    for (const room_id of ['a', 'b', 'c']) await client.join(room_id);
    await client.expectRefusal('too_many_rooms', 'join', { room_id: 'd' });
    await client.join('c');
    await client.expectRefusal('not_in_room', 'message', { room_id: 'd', content: 'x' });
    await client.request('leave', { room_id: 'a' });
    await client.join('d');
    // The limit applies to each connection separately.
    const tab = await lab.user(node, 'ada');
    for (const room_id of ['x', 'y', 'z']) await tab.join(room_id);
});

scenario('the number of status subscriptions of a connection is limited', async (lab) => {
    const node = await lab.node({ MAX_STATUS_SUBSCRIPTIONS: 3 });
    const client = await lab.user(node, 'ada');
    for (const target_user_id of ['a', 'b', 'c', 'c']) {
        await client.request('subscribe_status', { target_user_id });
    }
    await client.expectRefusal('too_many_subscriptions', 'subscribe_status', {
        target_user_id: 'd',
    });
    await client.request('unsubscribe_status', { target_user_id: 'a' });
    await client.request('subscribe_status', { target_user_id: 'd' });
});

onEachBackplane(
    'the number of connections of a user is limited in the cluster',
    { env: { MAX_SOCKETS_PER_USER: 2, PRESENCE_GRACE_MS: 30_000 } },
    async (lab, [near, far]) => {
        const [one] = [await lab.user(near, 'ada'), await lab.user(far, 'ada')];
        const third = await lab.client('4.8', far).connected();
        await third.expectRefusal('too_many_connections', 'authenticate', { user_id: 'ada' });
        await third.expectRefusal('unauthorized', 'join', { room_id: 'x' });
        // A connection in its grace doesn't count.
        one.close();
        await eventually(
            async () => (await third.ack('authenticate', { user_id: 'ada' })).ok,
            DEADLINE_MS,
            'a connection is accepted again',
        );
        const fourth = await lab.client('4.8', near).connected();
        await fourth.expectRefusal('too_many_connections', 'authenticate', { user_id: 'ada' });
        await fourth.authenticate('bob');
    },
);

onEachBackplane(
    'with a token in the handshake an excess connection is closed, and reconnects when the limit allows it',
    { env: { MAX_SOCKETS_PER_USER: 2, JWT_SECRET: SECRET } },
    async (lab, [near, far]) => {
        const auth = { token: token({ sub: 'ada' }) };
        const [one] = await Promise.all(
            [near, far].map(async (node) => {
                const client = await lab.client('4.8', node, { auth }).connected();
                await client.seen.next('authenticated');
                return client;
            }),
        );
        for (const transports of [TRANSPORTS.websocket, TRANSPORTS.polling]) {
            const tried = lab.client('4.8', far, { auth, transports });
            await tried.seen.waitFor(
                ({ event, data }) =>
                    (event === 'disconnect' && /^transport/.test(data)) ||
                    event === 'connect_error',
                DEADLINE_MS,
                'closed',
            );
            assert.equal(tried.seen.of('authenticated').length, 0);
            assert.deepEqual(
                tried.seen.of('connect_error', (message) =>
                    /^(unauthorized|token_expired|forbidden|too_many)/.test(message),
                ),
                [],
                'the refusal does not concern the identity',
            );
            tried.close();
        }
        const third = lab.client('4.8', far, { auth });
        await third.seen.waitFor(
            ({ event }) => event === 'disconnect' || event === 'connect_error',
            DEADLINE_MS,
            'closed',
        );
        one.close();
        await third.seen.next('authenticated', undefined, 15_000);
        await third.join('room');
    },
);

scenario('the events of a connection per second are limited', async (lab) => {
    const node = await lab.node({ RATE_EVENTS_PER_SEC: 5, RATE_EVENTS_BURST: 10 });
    const other = await lab.user(node, 'other');
    for (const version of VERSIONS) {
        const client = await lab.user(node, `user ${version}`, { version });
        const answers = await Promise.all(
            Array.from({ length: 40 }, () => client.ack('typing', { room_id: 'nowhere' })),
        );
        // authenticate took one event of the burst, and the time that passes may allow a few more.
        const refusals = answers.filter((answer) => answer.code === 'rate_limited');
        assert.ok(
            refusals.length >= 29 && refusals.length <= 31,
            `${refusals.length} of 40 refused`,
        );
        refusals.forEach((answer) =>
            assert.ok(
                Number.isInteger(answer.retry_after_ms) &&
                    answer.retry_after_ms > 0 &&
                    answer.retry_after_ms <= 1_000,
                JSON.stringify(answer),
            ),
        );
        const mark = client.seen.mark();
        client.socket.emit('typing', { room_id: 'nowhere' });
        assertRefusal(await client.seen.next('exception', undefined, DEADLINE_MS, mark), [
            'rate_limited',
            'not_in_room',
        ]);
        // Waiting for retry_after_ms is sufficient.
        const refusal = await client.ack('no_such_event');
        if (refusal.code === 'rate_limited') await pause(refusal.retry_after_ms + 50);
        await client.expectRefusal('unknown_event', 'no_such_event');
    }
    await other.join('other connections are not limited');
});

for (const limit of ['MAX_CONNECTIONS_PER_IP', 'MAX_CONNECTIONS']) {
    scenario(
        `${limit}: excess connections get 429 or 503 with Retry-After, and are accepted when another one ends`,
        async (lab) => {
            const node = await lab.node({ [limit]: 2 });
            const one = await lab.user(node, 'one');
            const two = await lab.user(node, 'two', { transports: TRANSPORTS.polling });
            const polled = await node.get('/socket.io/?EIO=4&transport=polling');
            assert.ok([429, 503].includes(polled.status), `polling: ${polled.status}`);
            assert.match(polled.headers.get('retry-after') ?? '', /^\d+$/);
            const ws = new WebSocket(
                `${node.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`,
            );
            const [, response] = await once(ws, 'unexpected-response');
            assert.equal(response.statusCode, polled.status);
            assert.match(response.headers['retry-after'] ?? '', /^\d+$/);
            ws.on('error', () => {}).terminate();
            assert.equal((await node.get('/health')).status, 200, 'REST is not a connection');
            const waiting = VERSIONS.map((version) => lab.client(version, node));
            await Promise.all(waiting.map((client) => client.seen.next('connect_error')));
            for (const [index, leaver] of [one, two].entries()) {
                leaver.close();
                const connected = () => waiting.filter((client) => client.socket.connected).length;
                await eventually(
                    () => connected() > index,
                    DEADLINE_MS,
                    'one more client is connected',
                );
                assert.equal(connected(), index + 1, 'exactly one more');
                assert.equal((await node.get('/health')).body.connectedClients, 2);
            }
        },
    );
}

scenario(
    'the handshakes of a node per second are limited, and all clients connect in the end',
    async (lab) => {
        const node = await lab.node({ MAX_HANDSHAKES_PER_SEC: 20 });
        const statuses = await Promise.all(
            Array.from({ length: 60 }, () => node.get('/socket.io/?EIO=4&transport=polling')),
        );
        const refused = statuses.filter((answer) => answer.status !== 200);
        assert.ok(refused.length >= 20, `${refused.length} of 60 refused`);
        for (const answer of refused) {
            assert.ok([429, 503].includes(answer.status));
            assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/);
        }
        const clients = Array.from({ length: 40 }, () => lab.client('4.8', node));
        await Promise.all(clients.map((client) => client.seen.next('connect', undefined, 20_000)));
    },
);

scenario('the configured sizes are enforced', async (lab) => {
    const node = await lab.node({
        MAX_CONTENT_BYTES: 100,
        MAX_PAYLOAD_BYTES: 200,
        MAX_EVENT_BYTES: 1_000,
        MAX_PACKET_BYTES: 5_000,
        MAX_ROOMS: 3,
    });
    const client = await lab.member(node, 'ada', 'a');
    await client.send('a', 'x'.repeat(100));
    await client.expectRefusal('too_large', 'message', { room_id: 'a', content: 'x'.repeat(101) });
    await client.request('message', { room_id: 'a', payload: 'x'.repeat(198) });
    await client.expectRefusal('too_large', 'message', { room_id: 'a', payload: 'x'.repeat(199) });
    await client.expectRefusal('too_large', 'message', {
        room_id: 'a',
        content: 'x',
        other: 'x'.repeat(1_000),
    });
    assert.equal((await node.post({ room_id: 'a', content: 'x'.repeat(101) })).status, 413);
    assert.equal(
        (await node.post({ room_id: 'a', content: 'x', other: 'x'.repeat(1_000) })).status,
        413,
    );
    await client.join('b');
    await client.join('c');
    assert.ok((await client.expectRefusal('overloaded', 'join', { room_id: 'd' })).error);
    await client.send('c', 'the other rooms still work');
});

scenario('messages emitted at once come to more than one packet over polling', async (lab) => {
    const node = await lab.node();
    for (const version of VERSIONS) {
        const client = await lab.member(node, `ada ${version}`, 'a', {
            version,
            transports: ['polling'],
        });
        const content = 'x'.repeat(15_000);
        const acks = Array.from({ length: 90 }, () => client.send('a', content));
        assert.equal((await Promise.all(acks)).length, 90);
        assert.equal(client.seen.of('disconnect').length, 0);
    }
});

scenario('a client that offers subprotocols connects', async (lab) => {
    const node = await lab.node();
    const protocols = ['chat.v1', 'chat.v2'];
    for (const version of VERSIONS) {
        const options =
            version === '2.5' ? { transportOptions: { websocket: { protocols } } } : { protocols };
        const client = await lab.user(node, 'ada', { version, ...options });
        assert.equal(client.socket.io.engine.transport.ws.protocol, 'chat.v1', version);
    }
});

scenario(
    'a client that answers no ping is closed; clients of every version and transport that answer stay connected',
    async (lab) => {
        const node = await lab.node({ PING_INTERVAL_MS: 400, PING_TIMEOUT_MS: 400 });
        const clients = await Promise.all(
            VERSIONS.flatMap((version) =>
                Object.values(TRANSPORTS).map((transports) =>
                    lab.user(node, 'ada', { version, transports }),
                ),
            ),
        );
        const silent = lab.raw(node);
        await silent.connected();
        silent.ws.removeAllListeners('message');
        for (let turn = 0; turn < 3; turn++) {
            const start = Date.now();
            const next = lab.raw(node);
            await next.connected();
            next.ws.removeAllListeners('message');
            await next.seen.waitFor(
                ({ event }) => event === 'close',
                5_000,
                'the silent client is closed',
            );
            assert.ok(Date.now() - start >= 400);
        }
        await silent.seen.waitFor(
            ({ event }) => event === 'close',
            DEADLINE_MS,
            'the first silent client is closed',
        );
        for (const client of clients) {
            assert.deepEqual(client.seen.of('disconnect'), [], client.version);
            await client.join('room');
        }
    },
);

for (const [reason, env] of [
    ['its outbox is full', {}],
    ['WRITE_TIMEOUT_SECS have passed', { MAX_OUTBOX_BYTES: 256 << 20 }],
]) {
    onEachBackplane(
        `a client that does not read is closed when ${reason}, and the other clients are not affected`,
        {
            env: { ...UNLIMITED, WRITE_TIMEOUT_SECS: 2, PRESENCE_GRACE_MS: 100, ...env },
            timeout: 60_000,
        },
        async (lab, [near, far]) => {
            const room_id = 'room';
            const content = 'x'.repeat(16_000);
            const sender = await lab.member(far, 'sender', room_id);
            const reader = await lab.member(near, 'reader', room_id);
            const slow = await lab.raw(near).connected();
            await slow.ack('"authenticate"', '{"user_id":"slow"}');
            await slow.ack('"join"', '{"room_id":"room"}');
            await reader.seen.next('user_joined', (data) => data.user_id === 'slow');
            slow.ws.pause();
            const start = Date.now();
            let sent = 0;
            let slowest = 0;
            while (reader.seen.of('user_left', (data) => data.user_id === 'slow').length === 0) {
                assert.ok(
                    Date.now() - start < 15_000,
                    `it is still connected after ${sent} messages`,
                );
                const roundStart = Date.now();
                await Promise.all(Array.from({ length: 16 }, () => sender.send(room_id, content)));
                sent += 16;
                await reader.seen.next('message', (message) => message.seq === sent);
                slowest = Math.max(slowest, Date.now() - roundStart);
                await pause(20);
            }
            assert.ok(slowest < 2_000, `a round took ${slowest} ms`);
            assertNoHole(reader.received(room_id), 1);
            assert.deepEqual(reader.seen.of('disconnect').concat(sender.seen.of('disconnect')), []);
        },
    );
}

onEachBackplane(
    'long replays and long histories never exceed MAX_OUTBOX_BYTES',
    { env: UNLIMITED, timeout: 90_000 },
    async (lab, [near, far]) => {
        const room_id = 'room';
        const count = 300;
        const sender = await lab.member(near, 'sender', room_id);
        await Promise.all(
            Array.from({ length: count }, (_, index) =>
                sender.send(room_id, `${index} ${'x'.repeat(12_000)}`),
            ),
        );
        for (const version of VERSIONS) {
            for (const transports of Object.values(TRANSPORTS)) {
                const client = await lab.user(far, 'reader', { version, transports });
                const ack = await client.join(room_id, { since_seq: 0 });
                assert.deepEqual([ack.recovered, ack.replayed], [true, count]);
                const pages = await Promise.all(
                    [1, 2, 3, 4].map(() => client.request('history', { room_id, limit: 200 })),
                );
                await client.seen.next('message', (message) => message.seq === count, 20_000);
                assertNoHole(client.received(room_id), 1, version);
                for (const page of pages) {
                    assert.ok(
                        page.messages.length < 60 &&
                            page.messages.length > 20 &&
                            page.has_more &&
                            page.messages.at(-1).seq === count,
                    );
                }
                assert.deepEqual(client.seen.of('disconnect'), []);
                client.close();
            }
        }
    },
);
