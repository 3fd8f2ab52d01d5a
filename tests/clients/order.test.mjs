// Every member of a room receives the same sequence, without a hole or a repeat: under load, across
// nodes, while joining, and for repeated sends.

import assert from 'node:assert/strict';
import { assertNoHole, eventually, onEachBackplane, pause, UNLIMITED } from './harness.mjs';

onEachBackplane(
    '5,000 messages sent without waiting reach every member on every node in order',
    { nodes: 3, env: UNLIMITED, timeout: 90_000 },
    async (lab, nodes) => {
        const room_id = 'flood';
        const count = 5_000;
        const members = await Promise.all(
            [...nodes, ...nodes].map((node, index) => lab.member(node, `member ${index}`, room_id)),
        );
        const [sender] = members;
        const acks = await Promise.all(
            Array.from({ length: count }, (_, index) =>
                sender.ackWithin(60_000, 'message', { room_id, content: `${index}` }),
            ),
        );
        const refused = acks.filter((ack) => !ack.ok);
        assert.deepEqual(refused.slice(0, 3), [], `${refused.length} of ${count} were refused`);
        assert.deepEqual(
            acks.map((ack) => ack.seq),
            Array.from({ length: count }, (_, index) => index + 1),
            'the order of one sender is kept',
        );
        for (const member of members) {
            await member.receives(room_id, `${count - 1}`, 30_000);
            assert.equal(member.received(room_id).length, count, member.seen.name);
            assertNoHole(member.received(room_id), 1, member.seen.name);
            assert.deepEqual(
                member.received(room_id).map((message) => message.content),
                acks.map((_, index) => `${index}`),
            );
        }
    },
);

onEachBackplane(
    'with four concurrent senders every member on every node receives the same sequence',
    { nodes: 3, env: UNLIMITED },
    async (lab, nodes) => {
        const room_id = 'concurrent';
        const each = 250;
        const members = await Promise.all(
            [...nodes, ...nodes].map((node, index) => lab.member(node, `member ${index}`, room_id)),
        );
        const senders = members.slice(0, 4);
        const acks = await Promise.all(
            senders.flatMap((sender, senderIndex) =>
                Array.from({ length: each }, async (_, index) => {
                    const ack = await sender.ackWithin(30_000, 'message', {
                        room_id,
                        content: `${senderIndex}:${index}`,
                    });
                    assert.ok(ack.ok, JSON.stringify(ack));
                    return ack;
                }),
            ),
        );
        const reference = members[0];
        for (const member of members) {
            await eventually(
                () => member.received(room_id).length >= 4 * each,
                20_000,
                `${member.seen.name} has all messages`,
            );
            assertNoHole(member.received(room_id), 1, member.seen.name);
            assert.deepEqual(member.received(room_id), reference.received(room_id));
        }
        assert.equal(reference.received(room_id).length, 4 * each);
        const bySeq = new Map(
            reference.received(room_id).map((message) => [message.seq, message.id]),
        );
        for (const ack of acks) {
            assert.equal(
                bySeq.get(ack.seq),
                ack.id,
                'an ack has the seq that all members received',
            );
        }
        for (const senderIndex of senders.keys()) {
            const own = reference
                .received(room_id)
                .map((message) => message.content)
                .filter((content) => content.startsWith(`${senderIndex}:`));
            assert.deepEqual(
                own,
                Array.from({ length: each }, (_, index) => `${senderIndex}:${index}`),
                "each sender's order is kept",
            );
        }
    },
);

onEachBackplane(
    '100 joins with since_seq under a load of 500 messages a second have no hole and no repeat',
    { nodes: 2, env: UNLIMITED, timeout: 120_000 },
    async (lab, [near, far]) => {
        const room_id = 'busy';
        const senders = await Promise.all(
            [near, far, near, far].map((node, index) =>
                lab.member(node, `sender ${index}`, room_id),
            ),
        );
        let head = 0;
        let sent = 0;
        let sending = true;
        const start = Date.now();
        const load = (async () => {
            while (sending) {
                for (const due = (Date.now() - start) / 2; sent < due; sent++) {
                    senders[sent % 4].socket.emit(
                        'message',
                        { room_id, content: `${sent}` },
                        (ack) => {
                            head = Math.max(head, ack.seq ?? 0);
                        },
                    );
                }
                await pause(4);
            }
        })();
        await eventually(() => head > 300, 20_000, 'the load runs');

        let joins = 0;
        const joinRepeatedly = async (number) => {
            for (let turn = 0; turn < 25; turn++) {
                const client = await lab.user(turn % 2 ? near : far, `joiner ${number}`);
                const since_seq = head - ((turn * 7) % 120);
                const { epoch, replayed, ...ack } = await client.join(
                    room_id,
                    turn % 3
                        ? { since_seq }
                        : { since_seq, epoch: (await client.join(room_id)).epoch },
                );
                assert.deepEqual(
                    [ack.recovered, ack.gap],
                    [true, false],
                    `since ${since_seq}, head ${head}: ${JSON.stringify(ack)}`,
                );
                // The order on the wire: ack, replay, room_users, live messages. (A first join, for the
                // epoch, has its own ack and room_users.)
                const from = client.seen.entries.findLastIndex(
                    (entry) => entry.event === 'ack:join',
                );
                const live = await client.seen.waitFor(
                    (entry) => entry.event === 'message' && entry.data.seq >= ack.seq + 30,
                    20_000,
                    '30 live messages',
                    from,
                );
                const order = client.seen.entries.slice(from);
                const replay = order.slice(1, 1 + replayed);
                assert.ok(
                    replay.every((entry) => entry.event === 'message'),
                    'the replay follows the ack',
                );
                assert.equal(
                    order[1 + replayed].event,
                    'room_users',
                    'room_users follows the replay',
                );
                assert.ok(
                    ack.seq - since_seq <= replayed,
                    `replayed ${replayed} of at least ${ack.seq - since_seq}`,
                );
                const messages = order
                    .filter((entry) => entry.event === 'message')
                    .map((entry) => entry.data);
                assertNoHole(messages, since_seq + 1, `joiner ${number}, turn ${turn}`);
                assert.ok(
                    messages.at(-1).seq >= live.data.seq &&
                        messages.every((message) => message.epoch === epoch),
                );
                client.close();
                joins++;
            }
        };
        try {
            await Promise.all([0, 1, 2, 3].map(joinRepeatedly));
        } finally {
            sending = false;
            await load;
        }
        assert.equal(joins, 100);
        const rate = sent / ((Date.now() - start) / 1000);
        assert.ok(rate > 400, `the load was ${rate.toFixed()} messages a second`);
    },
);

onEachBackplane(
    'concurrent sends with the same client_msg_id through two nodes and REST are delivered once',
    { nodes: 2, env: UNLIMITED },
    async (lab, [near, far]) => {
        const room_id = 'once';
        const user_id = 'repeater';
        const [one, two, other] = [
            await lab.member(near, user_id, room_id),
            await lab.member(far, user_id, room_id),
            await lab.member(far, 'other', room_id),
        ];
        for (let turn = 1; turn <= 25; turn++) {
            const client_msg_id = `id ${turn}`;
            const message = { room_id, content: `turn ${turn}`, client_msg_id };
            const [a, b, rest, header] = await Promise.all([
                one.request('message', message),
                two.request('message', message),
                near.post({ ...message, user_id }),
                far.post(
                    { room_id, content: message.content, user_id },
                    { 'idempotency-key': client_msg_id },
                ),
            ]);
            const acks = [a, b, rest.body, header.body];
            for (const ack of acks) {
                const { id, seq, epoch, timestamp } = ack;
                assert.deepEqual(
                    { id, seq, epoch, timestamp },
                    { id: a.id, seq: turn, epoch: a.epoch, timestamp: a.timestamp },
                    JSON.stringify(acks),
                );
            }
            assert.equal(
                acks.filter((ack) => ack.duplicate === false).length,
                1,
                JSON.stringify(acks),
            );
            assert.equal(
                acks.filter((ack) => ack.duplicate === true).length,
                3,
                JSON.stringify(acks),
            );
            for (const answer of [rest, header]) {
                assert.equal(answer.status, answer.body.duplicate ? 200 : 201);
            }
        }
        // The same id of another user, or in another room, is another message.
        assert.equal(
            (await other.send(room_id, 'mine', { client_msg_id: 'id 1' })).duplicate,
            false,
        );
        await one.join('elsewhere');
        assert.equal(
            (await one.send('elsewhere', 'there', { client_msg_id: 'id 1' })).duplicate,
            false,
        );
        await one.send(room_id, 'sentinel');
        for (const member of [one, two, other]) {
            await member.receives(room_id, 'sentinel');
            assertNoHole(member.received(room_id), 1);
            assert.equal(member.received(room_id).length, 27);
        }
    },
);

onEachBackplane(
    'without a database, a client that resumes from a position that the log no longer has gets a gap',
    { env: { HISTORY_SIZE: 10, DATABASE_URL: 'none' } },
    async (lab, [near, far]) => {
        const room_id = 'short';
        const sender = await lab.member(near, 'sender', room_id);
        for (let index = 1; index <= 25; index++) await sender.send(room_id, `${index}`);
        const replayOf = async (request) => {
            const client = await lab.user(far, 'reader');
            const ack = await client.join(room_id, request);
            await client.seen.next('room_users');
            const { recovered, gap, replayed, seq } = ack;
            assert.equal(client.received(room_id).length, replayed);
            client.close();
            return [
                recovered,
                gap,
                seq,
                client
                    .received(room_id)
                    .map((message) => message.seq)
                    .join(),
            ];
        };
        const kept = '16,17,18,19,20,21,22,23,24,25';
        const { epoch } = await sender.request('history', { room_id });
        assert.deepEqual(await replayOf({ since_seq: 20, epoch }), [
            true,
            false,
            25,
            '21,22,23,24,25',
        ]);
        assert.deepEqual(await replayOf({ since_seq: 15, epoch }), [true, false, 25, kept]);
        assert.deepEqual(await replayOf({ since_seq: 25, epoch }), [true, false, 25, '']);
        assert.deepEqual(await replayOf({ since_seq: 3, epoch }), [false, true, 25, kept]);
        assert.deepEqual(await replayOf({ since_seq: 26, epoch }), [false, true, 25, kept]);
        assert.deepEqual(await replayOf({ since_seq: 20, epoch: 'another' }), [
            false,
            true,
            25,
            kept,
        ]);
        assert.deepEqual(await replayOf({ limit: 3 }), [false, false, 25, '23,24,25']);
        assert.deepEqual(await replayOf({ limit: 0 }), [false, false, 25, '']);
        assert.deepEqual(await replayOf({}), [false, false, 25, '']);
        assert.deepEqual(await replayOf({ since_seq: null, epoch: null, limit: null }), [
            false,
            false,
            25,
            '',
        ]);
    },
);

onEachBackplane(
    'events of one connection take effect in the order in which they were sent',
    {},
    async (lab, [node]) => {
        const client = await lab.user(node, 'hasty');
        for (let turn = 0; turn < 20; turn++) {
            const room_id = `turn ${turn}`;
            const answers = await Promise.all([
                client.ack('message', { room_id, content: 'too early' }),
                client.ack('join', { room_id }),
                client.ack('message', { room_id, content: 'in time' }),
                client.ack('history', { room_id }),
                client.ack('leave', { room_id }),
                client.ack('message', { room_id, content: 'too late' }),
            ]);
            assert.deepEqual(
                answers.map((answer) => answer.code ?? answer.ok),
                ['not_in_room', true, true, true, true, 'not_in_room'],
            );
            assert.equal(answers[3].messages.length, 1);
        }
    },
);

onEachBackplane(
    'a replay of the whole log arrives once, in order, between ack and room_users',
    { env: UNLIMITED },
    async (lab, [near, far]) => {
        const room_id = 'long';
        const count = 1_000;
        // Sent by REST, so that the first reader is also the first member on its node.
        for (let sent = 0; sent < count; sent += 100) {
            await Promise.all(
                Array.from({ length: 100 }, (_, index) =>
                    near.post({ room_id, content: `${sent + index}` }),
                ),
            );
        }
        for (const node of [near, near, far]) {
            const client = await lab.user(node, 'reader');
            const { recovered, replayed } = await client.join(room_id, { since_seq: 0 });
            assert.deepEqual([recovered, replayed], [true, count]);
            await client.seen.next('room_users');
            assert.equal(client.received(room_id).length, count);
            assertNoHole(client.received(room_id), 1);
            // After a second join the replay arrives again, once.
            const mark = client.seen.mark();
            await client.join(room_id, { since_seq: 500 });
            await client.seen.next('room_users', undefined, undefined, mark);
            assertNoHole(client.received(room_id, mark), 501);
            assert.equal(client.received(room_id, mark).length, 500);
        }
    },
);
