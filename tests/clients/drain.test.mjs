// Proves that a node goes without anybody noticing much: told, spread over the time, taken up by another node, no presence noise, exit code 0.

import assert from 'node:assert/strict';
import {
    assertNoHole,
    eventually,
    pause,
    scenario,
    SOON,
    UNLIMITED,
    VERSIONS,
} from './harness.mjs';

const DRAIN_SECS = 4,
    CLIENTS = 24,
    room_id = 'room';

scenario(
    'SIGTERM: clients of every version move to another node over DRAIN_SECS, and resume',
    async (lab) => {
        const [going, staying] = await lab.cluster(2, {
            ...UNLIMITED,
            DRAIN_SECS,
            PRESENCE_GRACE_MS: 4_000,
        });
        const proxy = await lab.proxy(going);
        const watcher = await lab.member(staying, 'watcher', room_id);
        const users = Array.from({ length: CLIENTS }, (_, index) => `user ${index}`);
        for (const target_user_id of [...users, 'polling'])
            await watcher.ask('subscribe_status', { target_user_id });
        const clients = await Promise.all(
            users.map(async (user_id, index) => {
                const client = await lab.member(proxy, user_id, room_id, {
                    version: VERSIONS[index % 3],
                });
                const { epoch } = await client.ask('history', { room_id });
                client.socket.on('connect', () => {
                    client.socket.emit('authenticate', { user_id });
                    client.socket.emit(
                        'join',
                        { room_id, since_seq: client.heard(room_id).at(-1)?.seq ?? 0, epoch },
                        (answer) => client.seen.push('resumed', answer),
                    );
                });
                return client;
            }),
        );
        const polling = await lab.member(going, 'polling', room_id, {
            transports: ['polling'],
            reconnection: false,
        });
        for (const user of [...users, 'polling'])
            await watcher.seen.next('user_joined', (who) => who.user_id === user);
        const mark = watcher.seen.mark();

        let sending = true,
            sent = 0;
        const load = (async () => {
            for (; sending; sent++) {
                await watcher.say(room_id, `tick ${sent}`);
                await pause(20);
            }
        })();
        proxy.node = staying;
        const start = Date.now();
        going.signal('SIGTERM');
        await eventually(
            async () => {
                const readiness = await going.get('/readyz');
                return (
                    readiness.status === 503 &&
                    assert.deepEqual(readiness.body, { status: 'draining' }) === undefined
                );
            },
            2_000,
            '/readyz is 503 draining',
        );
        assert.equal((await going.get('/livez')).status, 200);
        const handshake = await going.get('/socket.io/?EIO=4&transport=polling');
        assert.equal(handshake.status, 503);
        assert.match(handshake.headers.get('retry-after') ?? '', /^\d+$/);

        const told = await Promise.all(
            [...clients, polling].map((client) =>
                client.seen.next('going_away', undefined, DRAIN_SECS * 1_000),
            ),
        );
        for (const { reconnect_in_ms } of told)
            assert.ok(
                Number.isInteger(reconnect_in_ms) &&
                    reconnect_in_ms >= 0 &&
                    reconnect_in_ms <= DRAIN_SECS * 1_000,
                `${reconnect_in_ms}`,
            );
        const resumed = await Promise.all(
            clients.map((client) =>
                client.seen.next('resumed', undefined, DRAIN_SECS * 1_000 + SOON),
            ),
        );
        for (const answer of resumed)
            assert.deepEqual(
                [answer.ok, answer.recovered, answer.gap],
                [true, true, false],
                JSON.stringify(answer),
            );
        await polling.seen.next('disconnect');
        const { code } = await going.exited;
        assert.equal(code, 0);
        assert.ok(
            Date.now() - start < (DRAIN_SECS + 4) * 1_000,
            `it took ${Date.now() - start} ms`,
        );

        // Closed as a transport, at different times.
        const closed = clients.map((client) =>
            client.seen.entries.find(({ event }) => event === 'disconnect'),
        );
        for (const { data } of closed) assert.match(data, /^transport (close|error)$/);
        const times = closed.map(({ at }) => at - start).toSorted((a, b) => a - b);
        assert.ok(
            times.at(-1) - times[0] >= DRAIN_SECS * 500,
            `all of them went within ${times.at(-1) - times[0]} ms`,
        );
        assert.ok(
            times.at(-1) <= DRAIN_SECS * 1_000 + 1_000,
            `the last one went after ${times.at(-1)} ms`,
        );
        const busiest = Math.max(
            ...times.map(
                (time) => times.filter((other) => other >= time && other < time + 500).length,
            ),
        );
        assert.ok(busiest <= CLIENTS / 2, `${busiest} of ${CLIENTS} went within half a second`);

        sending = false;
        await load;
        await watcher.say(room_id, 'sentinel');
        for (const client of [...clients, watcher]) {
            await client.hears(room_id, 'sentinel');
            assertNoHole(client.heard(room_id), 1, client.seen.name);
            assert.equal(client.heard(room_id).length, sent + 1);
        }
        // Who did not come back goes offline after the grace: the sentinel for those who did.
        await watcher.seen.next(
            'user_offline',
            (who) => who.user_id === 'polling' && !who.initial,
            10_000,
            mark,
        );
        await watcher.seen.next('user_left', (who) => who.user_id === 'polling', 10_000, mark);
        for (const event of ['user_joined', 'user_left', 'user_online', 'user_offline']) {
            assert.deepEqual(
                watcher.seen.of(event, (who) => who.user_id !== 'polling', mark),
                [],
                event,
            );
        }
        assert.equal((await staying.get(`/rooms/${room_id}/users`)).body.total, CLIENTS + 1);
    },
    { timeout: 60_000 },
);

scenario('a node without clients, or on its embedded backplane, drains too', async (lab) => {
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
