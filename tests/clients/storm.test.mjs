// Connection storms: when 500 clients connect at once and send their first event as early as possible,
// every one of them is answered.

import assert from 'node:assert/strict';
import { onEachBackplane, scenario, TRANSPORTS } from './harness.mjs';

const CLIENTS = 500;

async function connectAll(lab, nodes, transports, sendFirst) {
    const clients = Array.from({ length: CLIENTS }, (_, index) => {
        const client = lab.client('4.8', nodes[index % nodes.length], {
            transports,
            timeout: 60_000,
        });
        const authenticate = () =>
            client.socket.emit('authenticate', { user_id: `user ${index}` }, (answer) =>
                client.seen.push('answer', answer),
            );
        sendFirst(client, authenticate);
        return client;
    });
    await Promise.all(
        clients.map(async (client, index) => {
            const answer = await client.seen.next('answer', undefined, 60_000);
            assert.deepEqual(answer, {
                ok: true,
                user_id: `user ${index}`,
                username: `user ${index}`,
            });
            await client.seen.next('authenticated');
            assert.equal(client.seen.of('answer').length, 1);
            assert.equal(client.seen.of('connect').length, 1, 'there was only one connection');
        }),
    );
}

const onConnect = (client, authenticate) => client.socket.once('connect', authenticate);
const inTheSameTick = (_, authenticate) => authenticate();

for (const name of ['websocket', 'upgrade']) {
    scenario(
        `${CLIENTS} clients that authenticate on connect are all answered (${name})`,
        async (lab) => {
            await connectAll(lab, [await lab.node()], TRANSPORTS[name], onConnect);
        },
        { timeout: 120_000 },
    );
    scenario(
        `${CLIENTS} clients that authenticate in the same tick as io(), so that the event is buffered, are all answered (${name})`,
        async (lab) => {
            await connectAll(lab, [await lab.node()], TRANSPORTS[name], inTheSameTick);
        },
        { timeout: 120_000 },
    );
}

onEachBackplane(
    '100 clients that authenticate, join and send without waiting are all answered',
    { nodes: 2, timeout: 90_000 },
    async (lab, nodes) => {
        const room_id = 'burst';
        const count = 100;
        const clients = await Promise.all(
            Array.from({ length: count }, async (_, index) => {
                const client = lab.client('4.8', nodes[index % 2], {
                    transports: TRANSPORTS[index % 3 ? 'websocket' : 'upgrade'],
                });
                const answers = await Promise.all([
                    client.ackWithin(40_000, 'authenticate', { user_id: `user ${index}` }),
                    client.ackWithin(40_000, 'join', { room_id }),
                    client.ackWithin(40_000, 'message', { room_id, content: `${index}` }),
                ]);
                assert.deepEqual(
                    answers.map((answer) => answer.ok),
                    [true, true, true],
                    JSON.stringify(answers),
                );
                return client;
            }),
        );
        const { messages } = await clients[0].request('history', { room_id, limit: 200 });
        assert.equal(messages.length, count);
        for (const client of clients) {
            await client.seen.next('message', (message) => message.seq === count);
            const seqs = client.received(room_id).map((message) => message.seq);
            assert.deepEqual(
                seqs,
                seqs.map((_, index) => seqs[0] + index),
            );
        }
    },
);
