// Failures of nodes and of Redis: killed, stopped, restarted with and without data. No acknowledged
// message is lost, every loss is announced to the clients, and everything recovers automatically.

import assert from 'node:assert/strict';
import {
    assertNoHole,
    assertRefusal,
    DEADLINE_MS,
    eventually,
    pause,
    scenario,
    UNLIMITED,
    VERSIONS,
} from './harness.mjs';

const room_id = 'room';

/** The presence events of one user that `watcher` received, without initial states. */
const presenceEvents = (watcher, user_id) =>
    watcher.seen.entries
        .filter(
            ({ event, data }) =>
                /^user_(joined|left|online|offline)$/.test(event) &&
                data.user_id === user_id &&
                !data.initial,
        )
        .map(({ event }) => event);

/**
 * Sends a message every 50 ms until `stop()`, which returns the acknowledgements and the longest time
 * that one took, in ms.
 */
function sendContinuously(sender) {
    const acks = [];
    let sending = true;
    let slowest = 0;
    const run = (async () => {
        for (let index = 0; sending; index++) {
            const start = Date.now();
            acks.push(await sender.send(room_id, `tick ${index}`));
            slowest = Math.max(slowest, Date.now() - start);
            await pause(50);
        }
    })();
    run.catch(() => {});
    return {
        stop: async () => {
            sending = false;
            await run;
            return { acks, slowest };
        },
    };
}

scenario(
    'kill -9 of one of three nodes: each of its users leaves once, within 20 s, and the other nodes are not affected',
    async (lab) => {
        const [a, b, c] = await lab.cluster(3, UNLIMITED);
        const watchers = [
            await lab.member(a, 'watcher a', room_id),
            await lab.member(b, 'watcher b', room_id),
        ];
        const victims = VERSIONS.map((version) => `victim ${version}`);
        for (const watcher of watchers) {
            for (const target_user_id of [...victims, 'both', 'sentinel']) {
                await watcher.request('subscribe_status', { target_user_id });
            }
        }
        for (const [index, user] of victims.entries()) {
            await lab.member(c, user, room_id, { version: VERSIONS[index], reconnection: false });
        }
        // This user is also connected to another node, so it neither leaves nor goes offline.
        await lab.member(c, 'both', room_id, { reconnection: false });
        await lab.member(a, 'both', room_id);
        for (const watcher of watchers) {
            for (const user of [...victims, 'both']) {
                await eventually(
                    () => presenceEvents(watcher, user).length === 2,
                    DEADLINE_MS,
                    `${user} is present`,
                );
            }
        }

        const load = watchers.map(sendContinuously);
        const start = Date.now();
        c.signal('SIGKILL');
        for (const watcher of watchers) {
            for (const user of victims) {
                for (const event of ['user_left', 'user_offline']) {
                    await watcher.seen.next(
                        event,
                        (data) => data.user_id === user && !data.initial,
                        20_000 - (Date.now() - start),
                    );
                }
            }
        }
        const stopped = await Promise.all(load.map((each) => each.stop()));
        for (const { acks, slowest } of stopped) {
            assert.ok(acks.length > 10);
            assert.ok(slowest < 2_000, `a send took ${slowest} ms`);
        }
        const count = stopped[0].acks.length + stopped[1].acks.length;
        const sentinel = await lab.member(b, 'sentinel', room_id);
        await sentinel.request('leave', { room_id });
        sentinel.close();
        for (const watcher of watchers) {
            await watcher.seen.next(
                'user_offline',
                (data) => data.user_id === 'sentinel' && !data.initial,
            );
            for (const user of victims) {
                assert.deepEqual(
                    presenceEvents(watcher, user).toSorted(),
                    ['user_joined', 'user_left', 'user_offline', 'user_online'],
                    user,
                );
            }
            assert.deepEqual(presenceEvents(watcher, 'both').toSorted(), [
                'user_joined',
                'user_online',
            ]);
            await watcher.seen.next('message', (message) => message.seq === count);
            assertNoHole(watcher.received(room_id), 1);
            assert.equal(watcher.received(room_id).length, count);
        }
        assert.equal((await a.get(`/rooms/${room_id}/users`)).body.total, 3);
        assert.equal((await b.get('/users/one/status')).body.is_online, false);
    },
);

scenario(
    'kill -9 of a node: its clients resume on another node, without presence events or lost messages',
    async (lab) => {
        const [a, b] = await lab.cluster(2, { ...UNLIMITED, PRESENCE_GRACE_MS: 5_000 });
        const proxy = await lab.proxy(a);
        const watcher = await lab.member(b, 'watcher', room_id);
        await watcher.request('subscribe_status', { target_user_id: 'sentinel' });
        const clients = [];
        for (const version of VERSIONS) {
            const user_id = `user ${version}`;
            await watcher.request('subscribe_status', { target_user_id: user_id });
            const client = await lab.member(proxy, user_id, room_id, { version });
            const { epoch } = await client.request('history', { room_id });
            client.resumeOnReconnect(user_id, room_id, epoch);
            clients.push(client);
            await eventually(
                () => presenceEvents(watcher, user_id).length === 2,
                DEADLINE_MS,
                `${user_id} is present`,
            );
        }
        // Messages are sent through the node that dies, and through the other one.
        const load = sendContinuously(watcher);
        const doomed = await lab.member(a, 'doomed', room_id, { reconnection: false });
        const acked = [];
        const sendingThroughDoomed = (async () => {
            for (let index = 0; ; index++) {
                acked.push(await doomed.send(room_id, `doomed ${index}`));
            }
        })();
        sendingThroughDoomed.catch(() => {});
        await eventually(() => acked.length > 50, DEADLINE_MS, 'sending');
        proxy.node = b;
        a.signal('SIGKILL');
        for (const client of clients) {
            const answer = await client.seen.next('resumed', undefined, 10_000);
            assert.deepEqual(
                [answer.ok, answer.recovered, answer.gap],
                [true, true, false],
                JSON.stringify(answer),
            );
        }
        await load.stop();
        await watcher.send(room_id, 'sentinel');
        for (const client of [...clients, watcher]) {
            await client.receives(room_id, 'sentinel');
            assertNoHole(
                client.received(room_id),
                client.received(room_id)[0].seq,
                client.seen.name,
            );
            const ids = new Set(client.received(room_id).map((message) => message.id));
            for (const ack of acked) {
                assert.ok(
                    ids.has(ack.id),
                    `${client.seen.name} lacks an acknowledged message (seq ${ack.seq})`,
                );
            }
        }
        for (const version of VERSIONS) {
            assert.deepEqual(presenceEvents(watcher, `user ${version}`).toSorted(), [
                'user_joined',
                'user_online',
            ]);
        }
    },
    { timeout: 60_000 },
);

/** Starts two nodes with two members each: the initial state of every outage. */
async function clusterWithMembers(lab, options) {
    const nodes = await lab.cluster(2, { ...UNLIMITED, HISTORY_SIZE: 5_000 }, options);
    const members = [];
    for (const [index, node] of [nodes[0], nodes[1], nodes[0], nodes[1]].entries()) {
        members.push(
            await lab.member(node, `member ${index}`, room_id, {
                version: VERSIONS[index % VERSIONS.length],
            }),
        );
    }
    for (let index = 0; index < 5; index++) {
        await members[index % 4].send(room_id, `before ${index}`);
    }
    for (const member of members) await member.receives(room_id, 'before 4');
    return { nodes, members };
}

/** Reads the whole log of the room, page by page. */
async function readLog(node) {
    const log = [];
    for (let more = true; more; ) {
        const { body } = await node.get(
            `/rooms/${room_id}/messages?limit=200&after_seq=${log.at(-1)?.seq ?? 0}`,
        );
        log.push(...body.messages);
        more = body.has_more;
    }
    return log;
}

/**
 * Within 8 s the nodes are not ready, and refuse every request with `unavailable` and the time of a
 * retry. Connections stay open.
 */
async function expectOutage(nodes, members, since) {
    for (const node of nodes) {
        const health = await eventually(
            async () => {
                const answer = await node.get('/health');
                return answer.status === 503 && answer;
            },
            8_000 - (Date.now() - since),
            '/health is 503 within 8 s',
        );
        assert.deepEqual(health.body, { status: 'unhealthy', redis: 'down' });
        assert.match(health.headers.get('retry-after') ?? '', /^\d+$/);
        assert.equal((await node.get('/readyz')).status, 503);
        assert.equal((await node.get('/livez')).status, 200);
        const post = await node.post({ room_id, content: 'x' });
        assert.deepEqual([post.status, post.body.code], [503, 'unavailable']);
        assert.match(post.headers.get('retry-after') ?? '', /^\d+$/);
        const handshake = await node.get('/socket.io/?EIO=4&transport=polling');
        assert.equal(handshake.status, 503);
        assert.match(handshake.headers.get('retry-after') ?? '', /^\d+$/);
    }
    for (const member of members) {
        for (const [event, payload] of [
            ['message', { room_id, content: 'x' }],
            ['join', { room_id: 'another' }],
            ['history', { room_id }],
        ]) {
            const refusal = await member.expectRefusal('unavailable', event, payload);
            assert.ok(
                Number.isInteger(refusal.retry_after_ms) && refusal.retry_after_ms > 0,
                JSON.stringify(refusal),
            );
        }
        const mark = member.seen.mark();
        member.socket.emit('message', { room_id, content: 'x' });
        assertRefusal(
            await member.seen.next(
                'exception',
                ({ event }) => event === 'message',
                DEADLINE_MS,
                mark,
            ),
            'unavailable',
        );
        assert.deepEqual(member.seen.of('disconnect'), [], 'the sockets stay connected');
        await member.expectRefusal('bad_request', 'join', {});
    }
}

/**
 * Within 5 s everything works again: readiness, sends through both nodes, presence, new members.
 * `listed`: presence was lost, and members may learn of it by a `room_users`.
 */
async function expectRecovery(lab, nodes, members, since, { listed = false } = {}) {
    for (const node of nodes) {
        await eventually(
            async () => (await node.get('/readyz')).status === 200,
            5_000 - (Date.now() - since),
            'ready within 5 s',
        );
    }
    for (const [index, member] of members.entries()) {
        await eventually(
            async () =>
                (
                    await member.ack('message', {
                        room_id,
                        content: `back ${index}`,
                        client_msg_id: `back ${index}`,
                    })
                ).ok,
            5_000 - (Date.now() - since),
            'sends succeed within 5 s',
        );
    }
    for (const member of members) {
        for (const index of members.keys()) {
            await member.receives(room_id, `back ${index}`, 5_000 - (Date.now() - since));
        }
        assert.deepEqual(member.seen.of('disconnect'), [], 'the sockets stayed connected');
    }
    for (const node of nodes) {
        await eventually(
            async () => (await node.get(`/rooms/${room_id}/users`)).body.total === members.length,
            5_000,
            'all are members',
        );
        assert.equal(
            (await node.get(`/users/${encodeURIComponent('member 1')}/status`)).body.is_online,
            true,
        );
    }
    const newcomer = await lab.member(nodes[0], 'newcomer', room_id);
    // When members are restored, each node reads the newest list once, which may include the newcomer.
    const observes = (member, event, present) =>
        listed
            ? eventually(
                  () => usersKnownTo(member).has('newcomer') === present,
                  DEADLINE_MS,
                  `${member.seen.name} knows that the newcomer is ${present ? 'present' : 'absent'}`,
              )
            : member.seen.next(event, (data) => data.user_id === 'newcomer');
    for (const member of members) await observes(member, 'user_joined', true);
    await newcomer.request('leave', { room_id });
    for (const member of members) await observes(member, 'user_left', false);
}

/** The users in the room, according to the events that this member received. */
function usersKnownTo(member) {
    let users = new Set();
    for (const { event, data } of member.seen.entries) {
        if (event === 'room_users' && data.room_id === room_id) users = new Set(data.users);
        if (event === 'user_joined' && data.room_id === room_id) users.add(data.user_id);
        if (event === 'user_left' && data.room_id === room_id) users.delete(data.user_id);
    }
    return users;
}

/** No member received an event that another one left or came back. */
function expectNoPresenceEvents(members) {
    for (const [index, member] of members.entries()) {
        for (const [other] of members.entries()) {
            const expected = other > index ? ['user_joined'] : [];
            assert.deepEqual(
                presenceEvents(member, `member ${other}`),
                expected,
                `the events of member ${other} that member ${index} received`,
            );
        }
    }
}

scenario(
    'Redis is stopped and continues: requests are refused, then everything recovers and nothing is lost',
    async (lab) => {
        const { nodes, members } = await clusterWithMembers(lab);
        lab.redisServer.signal('SIGSTOP');
        const since = Date.now();
        // Sent while Redis doesn't answer: refused in time, and safe to repeat.
        const unanswered = members.map((member, index) =>
            member.ackWithin(12_000, 'message', {
                room_id,
                content: `unanswered ${index}`,
                client_msg_id: `unanswered ${index}`,
            }),
        );
        await expectOutage(nodes, members, since);
        const answers = await Promise.all(unanswered);
        for (const answer of answers) assertRefusal(answer, 'unavailable');

        const waiting = lab.client('4.8', nodes[1]);
        await waiting.seen.next('connect_error');
        lab.redisServer.signal('SIGCONT');
        await expectRecovery(lab, nodes, members, Date.now());
        await waiting.connected();
        for (const [index, member] of members.entries()) {
            await member.request('message', {
                room_id,
                content: `unanswered ${index}`,
                client_msg_id: `unanswered ${index}`,
            });
        }
        await members[0].send(room_id, 'sentinel');
        for (const member of members) {
            await member.receives(room_id, 'sentinel');
            const from = member.received(room_id)[0].seq;
            assertNoHole(member.received(room_id), from);
            for (const index of members.keys()) {
                assert.equal(
                    member
                        .received(room_id)
                        .filter(({ client_msg_id }) => client_msg_id === `unanswered ${index}`)
                        .length,
                    1,
                    'delivered exactly once',
                );
            }
            assert.deepEqual(member.seen.of('room_reset'), [], 'nothing was lost');
        }
        expectNoPresenceEvents(members);
    },
);

scenario(
    'Redis is killed and restarted with its data: everything recovers and nothing is lost',
    async (lab) => {
        const { nodes, members } = await clusterWithMembers(lab, { durable: true });
        const { epoch } = await members[0].request('history', { room_id });
        await lab.redisServer.kill();
        await expectOutage(nodes, members, Date.now());
        await lab.redis({ restartOf: lab.redisServer });
        await expectRecovery(lab, nodes, members, Date.now());
        for (const member of members) {
            // A new epoch may begin, because a restarted Redis may have lost its newest data. The
            // numbers continue.
            assertNoHole(
                member.received(room_id),
                member.received(room_id)[0].seq,
                member.seen.name,
                { epochs: 2 },
            );
            assert.deepEqual(member.seen.of('room_reset'), []);
        }
        // So a client that knows the old epoch misses nothing.
        const back = await lab.user(nodes[1], 'back');
        const { recovered, gap, replayed } = await back.join(room_id, { since_seq: 2, epoch });
        assert.deepEqual([recovered, gap, replayed], [true, false, 7]);
        await back.receives(room_id, 'back 3');
        assertNoHole(back.received(room_id), 3, 'resumed', { epochs: 2 });
        expectNoPresenceEvents(members);
    },
);

scenario(
    'Redis is killed under load and restarted with its data: no acknowledged message is lost',
    async (lab) => {
        const { nodes, members } = await clusterWithMembers(lab, { durable: true });
        const acked = [];
        const senders = members.map(async (member, senderIndex) => {
            for (let index = 0; index < 400; index++) {
                const content = `${senderIndex}:${index}`;
                const answer = await member.ackWithin(15_000, 'message', {
                    room_id,
                    content,
                    client_msg_id: content,
                });
                if (answer.ok) acked.push(answer.id);
                else {
                    assert.equal(answer.code, 'unavailable');
                    await pause(100);
                    index--;
                }
            }
        });
        await eventually(() => acked.length > 200, DEADLINE_MS, 'sending');
        await lab.redisServer.kill();
        await eventually(
            async () => (await nodes[0].get('/health')).status === 503,
            8_000,
            'the node notices the outage',
        );
        await lab.redis({ restartOf: lab.redisServer });
        await Promise.all(senders);
        await members[3].send(room_id, 'sentinel');
        const log = await readLog(nodes[0]);
        assertNoHole(log, 1, 'the log', { epochs: 2 });
        for (const [index, member] of members.entries()) {
            await member.receives(room_id, 'sentinel');
            const first = member.received(room_id)[0].seq;
            const seqs = new Set(member.received(room_id).map((message) => message.seq));
            const missing = log.filter(({ seq }) => seq >= first && !seqs.has(seq));
            assert.deepEqual(
                missing.map(({ seq, content }) => `${seq} ${content}`),
                [],
                `member ${index} (node ${index % 2}) lacks messages of the log`,
            );
            assertNoHole(member.received(room_id), first, member.seen.name, { epochs: 2 });
            assert.deepEqual(member.seen.of('room_reset'), []);
            const ids = new Set(member.received(room_id).map((message) => message.id));
            assert.deepEqual(
                acked.filter((id) => !ids.has(id)),
                [],
            );
            const contents = member.received(room_id).map((message) => message.content);
            assert.equal(contents.length, new Set(contents).size, 'each message arrives once');
        }
        expectNoPresenceEvents(members);
    },
    { timeout: 90_000 },
);

scenario(
    'Redis is killed and restarted empty: each member gets one room_reset, and all share a new epoch',
    async (lab) => {
        const { nodes, members } = await clusterWithMembers(lab);
        const { epoch } = await members[0].request('history', { room_id });
        await lab.redisServer.kill();
        await expectOutage(nodes, members, Date.now());
        const marks = members.map((member) => member.seen.mark());
        await lab.redis({ restartOf: lab.redisServer });
        await expectRecovery(lab, nodes, members, Date.now(), { listed: true });
        const resets = [];
        for (const [index, member] of members.entries()) {
            const reset = await member.seen.next(
                'room_reset',
                undefined,
                DEADLINE_MS,
                marks[index],
            );
            assert.equal(reset.room_id, room_id);
            assert.notEqual(reset.epoch, epoch);
            resets.push(reset.epoch);
            assert.equal(member.seen.of('room_reset').length, 1);
            const since = member.seen.entries.findIndex(({ event }) => event === 'room_reset');
            assertNoHole(member.received(room_id, since), reset.seq + 1, member.seen.name);
            assert.ok(
                member.received(room_id, since).every((message) => message.epoch === reset.epoch),
            );
            assert.ok(
                member.seen.entries
                    .slice(marks[index], since)
                    .every(({ event }) => event !== 'message'),
                'no new message before the reset',
            );
        }
        assert.equal(new Set(resets).size, 1, 'one epoch for all');
        // A client that resumes from the old epoch gets a gap.
        const late = await lab.user(nodes[1], 'late');
        const answer = await late.join(room_id, { since_seq: 3, epoch });
        assert.deepEqual([answer.recovered, answer.gap, answer.epoch], [false, true, resets[0]]);
        expectNoPresenceEvents(members);
    },
);

scenario(
    'without Redis at start the node is alive, not ready, and keeps trying to connect',
    async (lab) => {
        const stopped = await lab.redis();
        await stopped.kill();
        const node = await lab.start({ REDIS_URL: stopped.url });
        await eventually(
            async () => (await node.get('/livez')).status === 200,
            DEADLINE_MS,
            'alive',
        );
        assert.equal((await node.get('/readyz')).status, 503);
        const client = lab.client('4.8', node);
        await client.seen.next('connect_error');
        await lab.redis({ restartOf: stopped });
        await eventually(async () => (await node.get('/readyz')).status === 200, 5_000, 'ready');
        await client.connected();
        await client.authenticate('ada');
    },
);
