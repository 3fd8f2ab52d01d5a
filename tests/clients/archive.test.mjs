// What clients see of the archive: acknowledgements after commits, replays and pages beyond the log.

import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { assertNoHole, assertRefusal, onEachBackplane, scenario, UNLIMITED } from './harness.mjs';

const room_id = 'room';
const HISTORY_SIZE = 100;
const TOTAL = 1_000;

const seqs = (messages) => messages.map(({ seq }) => seq);
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

scenario(
    'acknowledgements keep the order of 5,000 messages sent without waiting, and of what is between',
    async (lab) => {
        const node = await lab.node(UNLIMITED);
        assert.equal((await node.get('/health')).body.database, 'ok');
        const client = await lab.member(node, 'ada', room_id);
        const from = client.seen.mark();
        const acks = [];
        const expected = [];
        for (let n = 1; n <= 5_000; n++) {
            acks.push(client.ackWithin(60_000, 'message', { room_id, content: `${n}` }));
            expected.push(`${n}`);
            if (n % 500 === 0) {
                acks.push(client.ackWithin(60_000, 'typing', { room_id }));
                acks.push(client.ackWithin(60_000, 'message', { room_id: 'elsewhere' }));
                expected.push('typing', 'not_in_room');
            }
        }
        await Promise.all(acks);
        const seen = client.seen.entries.slice(from).filter(({ event }) => event.startsWith('ack'));
        const shown = seen.map(({ event, data }) => {
            if (event === 'ack:typing') return 'typing';
            return data.ok ? `${data.seq}` : data.code;
        });
        assert.deepEqual(shown, expected);
        await client.receives(room_id, '5000');
        assertNoHole(client.received(room_id), 1);
    },
    { timeout: 120_000 },
);

scenario(
    'a client resumes and reads beyond the log',
    async (lab) => {
        const node = await lab.node({ ...UNLIMITED, HISTORY_SIZE });
        const sender = await lab.member(node, 'ada', room_id);
        await Promise.all(range(1, TOTAL).map((n) => sender.send(room_id, `${n}`)));
        const { epoch } = await sender.request('history', { room_id });

        const away = await lab.user(node, 'bob');
        for (const { since_seq, replay_limit, first, gap } of [
            { since_seq: 0, first: 1 },
            { since_seq: 7, first: 8 },
            { since_seq: TOTAL, first: TOTAL + 1 },
            { since_seq: 0, replay_limit: TOTAL, first: 1 },
            { since_seq: 0, replay_limit: 10_000, first: 1 },
            { since_seq: 0, replay_limit: TOTAL - 1, first: 2, gap: true },
            { since_seq: 500, replay_limit: 200, first: 801, gap: true },
            { since_seq: TOTAL - 1, replay_limit: 1, first: TOTAL },
            { since_seq: TOTAL - 2, replay_limit: 1, first: TOTAL, gap: true },
        ]) {
            const shown = JSON.stringify({ since_seq, replay_limit });
            const from = away.seen.mark();
            const answer = await away.join(room_id, { since_seq, epoch, replay_limit });
            assert.deepEqual(
                [answer.recovered, answer.gap, answer.replayed],
                [!gap, gap ?? false, TOTAL + 1 - first],
                shown,
            );
            await away.seen.next('room_users', undefined, 20_000, from);
            assert.deepEqual(seqs(away.received(room_id, from)), range(first, TOTAL), shown);
            await away.request('leave', { room_id });
        }

        // Pages from the newest message to the first.
        let before_seq;
        const pages = [];
        for (;;) {
            const page = await sender.request('history', { room_id, limit: 200, before_seq });
            pages.unshift(...page.messages);
            if (!page.has_more) break;
            before_seq = page.messages[0].seq;
        }
        assert.deepEqual(seqs(pages), range(1, TOTAL));
        assert.deepEqual(
            pages.map(({ content }) => content),
            range(1, TOTAL).map(String),
        );

        for (const [around_seq, limit, first, last] of [
            [500, 50, 475, 524],
            [500, 1, 500, 500],
            [3, 10, 1, 10],
            [1, 10, 1, 10],
            [TOTAL - HISTORY_SIZE, 10, 895, 904],
            [TOTAL, 10, TOTAL - 9, TOTAL],
            [TOTAL + 1, 10, TOTAL - 9, TOTAL],
        ]) {
            const { messages, ...page } = await sender.request('history', {
                room_id,
                around_seq,
                limit,
            });
            assert.deepEqual(seqs(messages), range(first, last), `${limit} around ${around_seq}`);
            const expected = {
                room_id,
                has_more: first > 1,
                has_more_after: last < TOTAL,
                seq: TOTAL,
                epoch,
            };
            assert.deepEqual(page, { ok: true, ...expected });
            const route = `/rooms/${room_id}/messages?around_seq=${around_seq}&limit=${limit}`;
            assert.deepEqual((await node.get(route)).body, { messages, ...expected });
        }
    },
    { timeout: 120_000 },
);

onEachBackplane(
    'replay_limit and around_seq are checked, and work without an archive',
    { env: { DATABASE_URL: 'none' } },
    async (lab, [near, far]) => {
        const client = await lab.member(near, 'ada', room_id);
        for (const n of range(1, 20)) await client.send(room_id, `${n}`);
        for (const payload of [
            { since_seq: 1, replay_limit: 0 },
            { since_seq: 1, replay_limit: 10_001 },
            { since_seq: 1, replay_limit: 'all' },
            { limit: 5, replay_limit: 5 },
        ]) {
            await client.expectRefusal('bad_request', 'join', { room_id, ...payload });
        }
        for (const query of ['around_seq=1&before_seq=1', 'around_seq=1&after_seq=1']) {
            const payload = Object.fromEntries(
                [...new URLSearchParams(query)].map(([key, value]) => [key, Number(value)]),
            );
            const answer = await client.ack('history', { room_id, ...payload });
            assertRefusal(answer, 'bad_request');
            assert.equal((await near.get(`/rooms/${room_id}/messages?${query}`)).status, 400);
        }
        assert.equal((await near.get('/health')).body.database, undefined);

        const other = await lab.user(far, 'bob');
        const answer = await other.join(room_id, { since_seq: 1, replay_limit: 5 });
        assert.deepEqual([answer.recovered, answer.gap, answer.replayed], [false, true, 5]);
        await other.receives(room_id, '20');
        assert.deepEqual(seqs(other.received(room_id)), range(16, 20));
        const page = await other.request('history', { room_id, around_seq: 10, limit: 5 });
        assert.deepEqual(seqs(page.messages), range(8, 12));
        assert.deepEqual([page.has_more, page.has_more_after], [true, true]);

        // Broadcasts over a plain WebSocket.
        for (const n of range(1, 5)) {
            await near.rest('POST', '/api/broadcast', { body: { type: 'news', data: { n } } });
        }
        const url = `${far.url.replace('http', 'ws')}/ws?user_id=eve&since_seq=0&replay_limit=2`;
        const frames = [];
        const socket = new WebSocket(url);
        await new Promise((resolve, reject) => {
            socket.onerror = reject;
            socket.onmessage = ({ data }) => {
                frames.push(JSON.parse(data));
                if (frames.length === 3) resolve();
            };
        });
        socket.close();
        const { gap, replayed, seq } = frames[0].payload;
        assert.deepEqual([frames[0].type, gap, replayed, seq], ['resumed', true, 2, 5]);
        assert.deepEqual(seqs(frames.slice(1)), [4, 5]);
    },
);
