// Proves that nobody is forgotten when 500 clients come at once and speak in the first moment they can.

import assert from 'node:assert/strict';
import { onEachBackplane, scenario, TRANSPORTS } from './harness.mjs';

const CLIENTS = 500;

async function storm(lab, nodes, transports, speak) {
    const clients = Array.from({ length: CLIENTS }, (_, index) => {
        const client = lab.client('4.8', nodes[index % nodes.length], {
            transports,
            timeout: 60_000,
        });
        const ask = () =>
            client.socket.emit('authenticate', { user_id: `user ${index}` }, (answer) =>
                client.seen.push('answer', answer),
            );
        speak(client, ask);
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
            assert.equal(client.seen.of('connect').length, 1, 'one connection was enough');
        }),
    );
}

const uponConnect = (client, ask) => client.socket.once('connect', ask);
const inTheSameTick = (_, ask) => ask();

for (const name of ['websocket', 'upgrade']) {
    scenario(
        `${CLIENTS} clients that authenticate upon connect are all answered (${name})`,
        async (lab) => {
            await storm(lab, [await lab.node()], TRANSPORTS[name], uponConnect);
        },
        { timeout: 120_000 },
    );
    scenario(
        `${CLIENTS} clients that authenticate in the tick of io(), buffered, are all answered (${name})`,
        async (lab) => {
            await storm(lab, [await lab.node()], TRANSPORTS[name], inTheSameTick);
        },
        { timeout: 120_000 },
    );
}

onEachBackplane(
    '100 clients that authenticate, join and send in one breath are all answered',
    { nodes: 2, timeout: 90_000 },
    async (lab, nodes) => {
        const room_id = 'breath',
            count = 100;
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
        const { messages } = await clients[0].ask('history', { room_id, limit: 200 });
        assert.equal(messages.length, count);
        for (const client of clients) {
            await client.seen.next('message', (message) => message.seq === count);
            const seqs = client.heard(room_id).map((message) => message.seq);
            assert.deepEqual(
                seqs,
                seqs.map((_, index) => seqs[0] + index),
            );
        }
    },
);
