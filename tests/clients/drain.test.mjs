// The drain of a node: it announces its end to each client, closes the connections evenly over
// DRAIN_SECS, and exits with code 0. The clients resume on another node, without presence events.

import assert from 'node:assert/strict';
import {
    assertNoHole,
    DEADLINE_MS,
    eventually,
    pause,
    scenario,
    UNLIMITED,
    VERSIONS,
} from './harness.mjs';

const DRAIN_SECS = 4;
const CLIENTS = 24;
const room_id = 'room';

scenario(
    'SIGTERM: clients of every version move to another node over DRAIN_SECS and resume',
    async (lab) => {
        const [draining, staying] = await lab.cluster(2, {
            ...UNLIMITED,
            DRAIN_SECS,
            PRESENCE_GRACE_MS: 4_000,
        });
        const proxy = await lab.proxy(draining);
        const watcher = await lab.member(staying, 'watcher', room_id);
        const users = Array.from({ length: CLIENTS }, (_, index) => `user ${index}`);
        for (const target_user_id of [...users, 'polling']) {
            await watcher.request('subscribe_status', { target_user_id });
        }
        const clients = await Promise.all(
            users.map(async (user_id, index) => {
                const client = await lab.member(proxy, user_id, room_id, {
                    version: VERSIONS[index % VERSIONS.length],
                });
                const { epoch } = await client.request('history', { room_id });
                client.resumeOnReconnect(user_id, room_id, epoch);
                return client;
            }),
        );
        const polling = await lab.member(draining, 'polling', room_id, {
            transports: ['polling'],
            reconnection: false,
        });
        for (const user of [...users, 'polling']) {
            await watcher.seen.next('user_joined', (data) => data.user_id === user);
        }
        const mark = watcher.seen.mark();

        let sending = true;
        let sent = 0;
        const load = (async () => {
            for (; sending; sent++) {
                await watcher.send(room_id, `tick ${sent}`);
                await pause(20);
            }
        })();
        proxy.node = staying;
        const start = Date.now();
        draining.signal('SIGTERM');
        await eventually(
            async () => {
                const readiness = await draining.get('/readyz');
                return (
                    readiness.status === 503 &&
                    assert.deepEqual(readiness.body, { status: 'draining' }) === undefined
                );
            },
            2_000,
            '/readyz is 503 draining',
        );
        assert.equal((await draining.get('/livez')).status, 200);
        const handshake = await draining.get('/socket.io/?EIO=4&transport=polling');
        assert.equal(handshake.status, 503);
        assert.match(handshake.headers.get('retry-after') ?? '', /^\d+$/);

        const announcements = await Promise.all(
            [...clients, polling].map((client) =>
                client.seen.next('going_away', undefined, DRAIN_SECS * 1_000),
            ),
        );
        for (const { reconnect_in_ms } of announcements) {
            assert.ok(
                Number.isInteger(reconnect_in_ms) &&
                    reconnect_in_ms >= 0 &&
                    reconnect_in_ms <= DRAIN_SECS * 1_000,
                `${reconnect_in_ms}`,
            );
        }
        const resumed = await Promise.all(
            clients.map((client) =>
                client.seen.next('resumed', undefined, DRAIN_SECS * 1_000 + DEADLINE_MS),
            ),
        );
        for (const answer of resumed) {
            assert.deepEqual(
                [answer.ok, answer.recovered, answer.gap],
                [true, true, false],
                JSON.stringify(answer),
            );
        }
        await polling.seen.next('disconnect');
        const { code } = await draining.exited;
        assert.equal(code, 0);
        assert.ok(
            Date.now() - start < (DRAIN_SECS + 4) * 1_000,
            `the drain took ${Date.now() - start} ms`,
        );

        // The transports were closed, at different times.
        const closed = clients.map((client) =>
            client.seen.entries.find(({ event }) => event === 'disconnect'),
        );
        for (const { data } of closed) assert.match(data, /^transport (close|error)$/);
        const times = closed.map(({ at }) => at - start).toSorted((a, b) => a - b);
        assert.ok(
            times.at(-1) - times[0] >= DRAIN_SECS * 500,
            `all connections were closed within ${times.at(-1) - times[0]} ms`,
        );
        assert.ok(
            times.at(-1) <= DRAIN_SECS * 1_000 + 1_000,
            `the last connection was closed after ${times.at(-1)} ms`,
        );
        const busiest = Math.max(
            ...times.map(
                (time) => times.filter((other) => other >= time && other < time + 500).length,
            ),
        );
        assert.ok(
            busiest <= CLIENTS / 2,
            `${busiest} of ${CLIENTS} connections were closed within 500 ms`,
        );

        sending = false;
        await load;
        await watcher.send(room_id, 'sentinel');
        for (const client of [...clients, watcher]) {
            await client.receives(room_id, 'sentinel');
            assertNoHole(client.received(room_id), 1, client.seen.name);
            assert.equal(client.received(room_id).length, sent + 1);
        }
        // The client that didn't reconnect goes offline after the grace. It is the sentinel: the clients
        // that did reconnect caused no such event before it.
        await watcher.seen.next(
            'user_offline',
            (data) => data.user_id === 'polling' && !data.initial,
            10_000,
            mark,
        );
        await watcher.seen.next('user_left', (data) => data.user_id === 'polling', 10_000, mark);
        for (const event of ['user_joined', 'user_left', 'user_online', 'user_offline']) {
            assert.deepEqual(
                watcher.seen.of(event, (data) => data.user_id !== 'polling', mark),
                [],
                event,
            );
        }
        assert.equal((await staying.get(`/rooms/${room_id}/users`)).body.total, CLIENTS + 1);
    },
    { timeout: 60_000 },
);

scenario('a node without clients and a node on the embedded backplane drain too', async (lab) => {
    const empty = await lab.node({ DRAIN_SECS });
    const start = Date.now();
    empty.signal('SIGTERM');
    assert.equal((await empty.exited).code, 0);
    assert.ok(Date.now() - start < 3_000, `an empty node took ${Date.now() - start} ms`);

    const alone = await lab.node({ DRAIN_SECS: 1 });
    const clients = await Promise.all(
        VERSIONS.map((version) => lab.member(alone, `user ${version}`, room_id, { version })),
    );
    alone.signal('SIGTERM');
    for (const client of clients) {
        await client.seen.next('going_away');
        await client.seen.next('disconnect', (reason) => /^transport (close|error)$/.test(reason));
    }
    assert.equal((await alone.exited).code, 0);
});

scenario('a second SIGTERM ends the drain at once', async (lab) => {
    const node = await lab.node({ DRAIN_SECS: 30 });
    const client = await lab.member(node, 'ada', room_id);
    node.signal('SIGTERM');
    await client.seen.next('going_away');
    const start = Date.now();
    node.signal('SIGTERM');
    await node.exited;
    assert.ok(Date.now() - start < 5_000);
});
