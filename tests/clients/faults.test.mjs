// Proves what clients see when a node or Redis fails, stands still, comes back, or comes back empty: nothing acknowledged is lost, every loss is told, all mends itself.

import assert from 'node:assert/strict';
import {
    assertNoHole,
    assertRefusal,
    eventually,
    pause,
    scenario,
    SOON,
    UNLIMITED,
    VERSIONS,
} from './harness.mjs';

const room_id = 'room';
const changes = (watcher, user_id) =>
    watcher.seen.entries
        .filter(
            ({ event, data }) =>
                /^user_(joined|left|online|offline)$/.test(event) &&
                data.user_id === user_id &&
                !data.initial,
        )
        .map(({ event }) => event);

/** One message every 50 ms, until `stop()`, which gives the acks and the longest time that one took. */
function ticker(sender) {
    const acks = [];
    let going = true,
        slowest = 0;
    const run = (async () => {
        for (let index = 0; going; index++) {
            const start = Date.now();
            acks.push(await sender.say(room_id, `tick ${index}`));
            slowest = Math.max(slowest, Date.now() - start);
            await pause(50);
        }
    })();
    run.catch(() => {});
    return {
        stop: async () => {
            going = false;
            await run;
            return { acks, slowest };
        },
    };
}

scenario(
    'kill -9 of one node of three: its users leave once each, within 20 s, while the others go on',
    async (lab) => {
        const [a, b, c] = await lab.cluster(3, UNLIMITED);
        const watchers = [
            await lab.member(a, 'watcher a', room_id),
            await lab.member(b, 'watcher b', room_id),
        ];
        const victims = ['one', 'two', 'three'];
        for (const watcher of watchers)
            for (const target_user_id of [...victims, 'both', 'sentinel'])
                await watcher.ask('subscribe_status', { target_user_id });
        for (const [index, user] of victims.entries())
            await lab.member(c, user, room_id, { version: VERSIONS[index], reconnection: false });
        // Also connected elsewhere: so neither leaves nor goes offline.
        await lab.member(c, 'both', room_id, { reconnection: false });
        await lab.member(a, 'both', room_id);
        for (const watcher of watchers) {
            for (const user of [...victims, 'both'])
                await eventually(() => changes(watcher, user).length === 2, SOON, `${user} came`);
        }

        const ticks = [ticker(watchers[0]), ticker(watchers[1])];
        const start = Date.now();
        c.signal('SIGKILL');
        for (const watcher of watchers) {
            for (const user of victims) {
                for (const event of ['user_left', 'user_offline']) {
                    await watcher.seen.next(
                        event,
                        (who) => who.user_id === user && !who.initial,
                        20_000 - (Date.now() - start),
                    );
                }
            }
        }
        const stopped = await Promise.all(ticks.map((each) => each.stop()));
        for (const { acks, slowest } of stopped) {
            assert.ok(acks.length > 10);
            assert.ok(slowest < 2_000, `a send took ${slowest} ms`);
        }
        const count = stopped[0].acks.length + stopped[1].acks.length;
        const sentinel = await lab.member(b, 'sentinel', room_id);
        await sentinel.ask('leave', { room_id });
        sentinel.close();
        for (const watcher of watchers) {
            await watcher.seen.next(
                'user_offline',
                (who) => who.user_id === 'sentinel' && !who.initial,
            );
            for (const user of victims)
                assert.deepEqual(
                    changes(watcher, user).toSorted(),
                    ['user_joined', 'user_left', 'user_offline', 'user_online'],
                    user,
                );
            assert.deepEqual(changes(watcher, 'both').toSorted(), ['user_joined', 'user_online']);
            await watcher.seen.next('message', (message) => message.seq === count);
            assertNoHole(watcher.heard(room_id), 1);
            assert.equal(watcher.heard(room_id).length, count);
        }
        assert.equal((await a.get(`/rooms/${room_id}/users`)).body.total, 3);
        assert.equal((await b.get('/users/one/status')).body.is_online, false);
    },
);

scenario(
    'kill -9 of a node: its clients come back through another one and resume, without noise or loss',
    async (lab) => {
        const [a, b] = await lab.cluster(2, { ...UNLIMITED, PRESENCE_GRACE_MS: 5_000 });
        const proxy = await lab.proxy(a);
        const watcher = await lab.member(b, 'watcher', room_id);
        await watcher.ask('subscribe_status', { target_user_id: 'sentinel' });
        const clients = [];
        for (const version of VERSIONS) {
            const user_id = `user ${version}`;
            await watcher.ask('subscribe_status', { target_user_id: user_id });
            const client = await lab.member(proxy, user_id, room_id, { version });
            const { epoch } = await client.ask('history', { room_id });
            client.socket.on('connect', () => {
                client.socket.emit('authenticate', { user_id });
                client.socket.emit(
                    'join',
                    { room_id, since_seq: client.heard(room_id).at(-1)?.seq ?? 0, epoch },
                    (answer) => client.seen.push('resumed', answer),
                );
            });
            clients.push(client);
            await eventually(() => changes(watcher, user_id).length === 2, SOON, `${user_id} came`);
        }
        // Through the node that dies, and through the other one.
        const tick = ticker(watcher);
        const doomed = await lab.member(a, 'doomed', room_id, { reconnection: false });
        const acked = [];
        const firing = (async () => {
            for (let index = 0; ; index++) acked.push(await doomed.say(room_id, `doomed ${index}`));
        })();
        firing.catch(() => {});
        await eventually(() => acked.length > 50, SOON, 'sending');
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
        await tick.stop();
        await watcher.say(room_id, 'sentinel');
        for (const client of [...clients, watcher]) {
            await client.hears(room_id, 'sentinel');
            assertNoHole(client.heard(room_id), client.heard(room_id)[0].seq, client.seen.name);
            const ids = new Set(client.heard(room_id).map((message) => message.id));
            for (const ack of acked)
                assert.ok(
                    ids.has(ack.id),
                    `${client.seen.name} lacks an acknowledged message (seq ${ack.seq})`,
                );
        }
        for (const version of VERSIONS)
            assert.deepEqual(changes(watcher, `user ${version}`).toSorted(), [
                'user_joined',
                'user_online',
            ]);
    },
    { timeout: 60_000 },
);

/** Two nodes with two members each; what every outage starts from. */
async function townOn(lab, options) {
    const nodes = await lab.cluster(2, { ...UNLIMITED, HISTORY_SIZE: 5_000 }, options);
    const members = [];
    for (const [index, node] of [nodes[0], nodes[1], nodes[0], nodes[1]].entries())
        members.push(
            await lab.member(node, `member ${index}`, room_id, { version: VERSIONS[index % 3] }),
        );
    for (let index = 0; index < 5; index++)
        await members[index % 4].say(room_id, `before ${index}`);
    for (const member of members) await member.hears(room_id, 'before 4');
    return { nodes, members };
}

/** The whole log of the room, page by page. */
async function logOf(node) {
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
            const refusal = await member.refused('unavailable', event, payload);
            assert.ok(
                Number.isInteger(refusal.retry_after_ms) && refusal.retry_after_ms > 0,
                JSON.stringify(refusal),
            );
        }
        const mark = member.seen.mark();
        member.socket.emit('message', { room_id, content: 'x' });
        assertRefusal(
            await member.seen.next('exception', ({ event }) => event === 'message', SOON, mark),
            'unavailable',
        );
        assert.deepEqual(member.seen.of('disconnect'), [], 'the sockets stay connected');
        await member.refused('bad_request', 'join', {});
    }
}

/** Within 5 s everything works by itself: readiness, sends through both nodes, presence, newcomers. */
async function expectRecovery(lab, nodes, members, since, { listed = false } = {}) {
    for (const node of nodes)
        await eventually(
            async () => (await node.get('/readyz')).status === 200,
            5_000 - (Date.now() - since),
            'ready within 5 s',
        );
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
            'sends work within 5 s',
        );
    }
    for (const member of members) {
        for (const index of members.keys())
            await member.hears(room_id, `back ${index}`, 5_000 - (Date.now() - since));
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
    // Where members are put back, each node reads the newest list once: it may have the newcomer already.
    const told = (member, event, there) =>
        listed
            ? eventually(
                  () => known(member).has('newcomer') === there,
                  SOON,
                  `${member.seen.name} knows whether the newcomer is there`,
              )
            : member.seen.next(event, (who) => who.user_id === 'newcomer');
    for (const member of members) await told(member, 'user_joined', true);
    await newcomer.ask('leave', { room_id });
    for (const member of members) await told(member, 'user_left', false);
}

/** Who is in the room, as far as this member was told. */
function known(member) {
    let users = new Set();
    for (const { event, data } of member.seen.entries) {
        if (event === 'room_users' && data.room_id === room_id) users = new Set(data.users);
        if (event === 'user_joined' && data.room_id === room_id) users.add(data.user_id);
        if (event === 'user_left' && data.room_id === room_id) users.delete(data.user_id);
    }
    return users;
}

/** None of the members heard that another one came or went. */
function expectNoNoise(members) {
    for (const [index, member] of members.entries()) {
        for (const [other] of members.entries()) {
            const expected = other > index ? ['user_joined'] : [];
            assert.deepEqual(
                changes(member, `member ${other}`),
                expected,
                `what member ${index} heard of member ${other}`,
            );
        }
    }
}

scenario(
    'Redis stands still and goes on: clear refusals, then everything works by itself, with nothing lost',
    async (lab) => {
        const { nodes, members } = await townOn(lab);
        lab.store.signal('SIGSTOP');
        const since = Date.now();
        // Sent into the silence: answered in time, and safe to repeat.
        const silent = members.map((member, index) =>
            member.ackWithin(12_000, 'message', {
                room_id,
                content: `silent ${index}`,
                client_msg_id: `silent ${index}`,
            }),
        );
        await expectOutage(nodes, members, since);
        const answers = await Promise.all(silent);
        for (const answer of answers) assertRefusal(answer, 'unavailable');

        const waiting = lab.client('4.8', nodes[1]);
        await waiting.seen.next('connect_error');
        lab.store.signal('SIGCONT');
        await expectRecovery(lab, nodes, members, Date.now());
        await waiting.connected();
        for (const [index, member] of members.entries())
            await member.ask('message', {
                room_id,
                content: `silent ${index}`,
                client_msg_id: `silent ${index}`,
            });
        await members[0].say(room_id, 'sentinel');
        for (const member of members) {
            await member.hears(room_id, 'sentinel');
            const from = member.heard(room_id)[0].seq;
            assertNoHole(member.heard(room_id), from);
            for (const index of members.keys()) {
                assert.equal(
                    member
                        .heard(room_id)
                        .filter(({ client_msg_id }) => client_msg_id === `silent ${index}`).length,
                    1,
                    'delivered once',
                );
            }
            assert.deepEqual(member.seen.of('room_reset'), [], 'nothing was lost');
        }
        expectNoNoise(members);
    },
);

scenario(
    'Redis is killed and started again with its data: everything works by itself, with nothing lost',
    async (lab) => {
        const { nodes, members } = await townOn(lab, { durable: true });
        const { epoch } = await members[0].ask('history', { room_id });
        await lab.store.kill();
        await expectOutage(nodes, members, Date.now());
        await lab.redis({ before: lab.store });
        await expectRecovery(lab, nodes, members, Date.now());
        for (const member of members) {
            // A new epoch may begin, since a Redis that was away may have lost its end; the numbers go on where they were.
            assertNoHole(member.heard(room_id), member.heard(room_id)[0].seq, member.seen.name, {
                epochs: 2,
            });
            assert.deepEqual(member.seen.of('room_reset'), []);
        }
        // So who has seen the old epoch misses nothing.
        const back = await lab.user(nodes[1], 'back');
        const { recovered, gap, replayed } = await back.join(room_id, { since_seq: 2, epoch });
        assert.deepEqual([recovered, gap, replayed], [true, false, 7]);
        await back.hears(room_id, 'back 3');
        assertNoHole(back.heard(room_id), 3, 'resumed', { epochs: 2 });
        expectNoNoise(members);
    },
);

scenario(
    'Redis is killed while many send, and started again with its data: nothing acknowledged is lost',
    async (lab) => {
        const { nodes, members } = await townOn(lab, { durable: true });
        const acked = [];
        const senders = members.map(async (member, who) => {
            for (let index = 0; index < 400; index++) {
                const content = `${who}:${index}`;
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
        await eventually(() => acked.length > 200, SOON, 'sending');
        await lab.store.kill();
        await eventually(
            async () => (await nodes[0].get('/health')).status === 503,
            8_000,
            'noticed',
        );
        await lab.redis({ before: lab.store });
        await Promise.all(senders);
        await members[3].say(room_id, 'sentinel');
        const log = await logOf(nodes[0]);
        assertNoHole(log, 1, 'the log', { epochs: 2 });
        for (const [index, member] of members.entries()) {
            await member.hears(room_id, 'sentinel');
            const first = member.heard(room_id)[0].seq;
            const seqs = new Set(member.heard(room_id).map((message) => message.seq));
            const missing = log.filter(({ seq }) => seq >= first && !seqs.has(seq));
            assert.deepEqual(
                missing.map(({ seq, content }) => `${seq} ${content}`),
                [],
                `member ${index} (node ${index % 2}) lacks what the log has`,
            );
            assertNoHole(member.heard(room_id), first, member.seen.name, { epochs: 2 });
            assert.deepEqual(member.seen.of('room_reset'), []);
            const ids = new Set(member.heard(room_id).map((message) => message.id));
            assert.deepEqual(
                acked.filter((id) => !ids.has(id)),
                [],
            );
            const contents = member.heard(room_id).map((message) => message.content);
            assert.equal(contents.length, new Set(contents).size, 'each once');
        }
        expectNoNoise(members);
    },
    { timeout: 90_000 },
);

scenario(
    'Redis is killed and comes back empty: each member is told once, and a new numbering begins for all',
    async (lab) => {
        const { nodes, members } = await townOn(lab);
        const { epoch } = await members[0].ask('history', { room_id });
        await lab.store.kill();
        await expectOutage(nodes, members, Date.now());
        const marks = members.map((member) => member.seen.mark());
        await lab.redis({ before: lab.store });
        await expectRecovery(lab, nodes, members, Date.now(), { listed: true });
        const resets = [];
        for (const [index, member] of members.entries()) {
            const reset = await member.seen.next('room_reset', undefined, SOON, marks[index]);
            assert.equal(reset.room_id, room_id);
            assert.notEqual(reset.epoch, epoch);
            resets.push(reset.epoch);
            assert.equal(member.seen.of('room_reset').length, 1);
            const since = member.seen.entries.findIndex(({ event }) => event === 'room_reset');
            assertNoHole(member.heard(room_id, since), reset.seq + 1, member.seen.name);
            assert.ok(
                member.heard(room_id, since).every((message) => message.epoch === reset.epoch),
            );
            assert.ok(
                member.seen.entries
                    .slice(marks[index], since)
                    .every(({ event }) => event !== 'message'),
                'no new message before the reset',
            );
        }
        assert.equal(new Set(resets).size, 1, 'one epoch for all');
        // Who resumes from the old numbering is told of the gap.
        const late = await lab.user(nodes[1], 'late');
        const answer = await late.join(room_id, { since_seq: 3, epoch });
        assert.deepEqual([answer.recovered, answer.gap, answer.epoch], [false, true, resets[0]]);
        expectNoNoise(members);
    },
);

scenario(
    'a Redis that is not there at start leaves the node up, not ready, and trying',
    async (lab) => {
        const before = await lab.redis();
        await before.kill();
        const node = await lab.start({ REDIS_URL: before.url });
        await eventually(async () => (await node.get('/livez')).status === 200, SOON, 'alive');
        assert.equal((await node.get('/readyz')).status, 503);
        const client = lab.client('4.8', node);
        await client.seen.next('connect_error');
        await lab.redis({ before });
        await eventually(async () => (await node.get('/readyz')).status === 200, 5_000, 'ready');
        await client.connected();
        await client.authenticate('ada');
    },
);
