// Plain WebSockets with real clients (Node's ws, a browser): they receive the same sequence as Socket.IO
// clients, each broadcast reaches each of them once even when nodes die and drain, and the example page
// stays current.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import WebSocket from 'ws';
import {
    assertNoHole,
    DEADLINE_MS,
    eventually,
    inSeconds,
    Recorder,
    scenario,
    SECRET,
    token,
    UNLIMITED,
} from './harness.mjs';

const PAGE = new URL('../../docs/examples/tasks.html', import.meta.url);
const FIRST_CHAT = new URL('../../docs/examples/first-chat.html', import.meta.url);

/** A plain client on Node's ws, with the record of everything that it received in `seen`. */
class PlainClient {
    constructor(lab, node, { query = {}, protocols, headers } = {}) {
        this.seen = new Recorder(`plain client ${query.user_id ?? ''}`);
        this.ws = new WebSocket(
            `${node.url.replace('http', 'ws')}/ws?${new URLSearchParams(query)}`,
            protocols,
            { headers },
        );
        this.ws.on('message', (data) => {
            const frame = JSON.parse(data);
            this.seen.push(frame.type === 'ack' ? `ack:${frame.ref}` : frame.type, frame);
        });
        this.ws.on('close', (code, reason) =>
            this.seen.push('close', { code, reason: String(reason) }),
        );
        this.ws.on('unexpected-response', (_, response) =>
            this.seen.push('refused', response.statusCode),
        );
        this.ws.on('error', (error) => this.seen.push('failure', error.message));
        this.next = 0;
        lab.clients.push(this);
    }

    async open() {
        if (this.ws.readyState !== WebSocket.OPEN) await once(this.ws, 'open');
        return this;
    }

    /** Sends an event and returns its acknowledgement, which must be positive. */
    async request(type, payload) {
        const ref = String(this.next++);
        this.ws.send(JSON.stringify({ type, payload, ref }));
        const { payload: answer } = await this.seen.next(`ack:${ref}`);
        assert.equal(answer.ok, true, `${type} → ${JSON.stringify(answer)}`);
        return answer;
    }

    /** The broadcasts, in the order of their arrival. */
    broadcasts() {
        return this.seen.entries.filter(({ data }) => data?.seq).map(({ data }) => data);
    }

    close() {
        this.ws.terminate();
    }
}

async function broadcast(node, type, data, headers = {}) {
    const { status, body } = await node.rest('POST', '/api/broadcast', {
        body: { type, data },
        headers,
    });
    assert.equal(status, 202, JSON.stringify(body));
    return body;
}

scenario(
    'one POST reaches clients with the token in a header, a subprotocol or the query',
    async (lab) => {
        const node = await lab.node({ JWT_SECRET: SECRET, API_KEYS: 'key' });
        const mine = token({ sub: 'ann' });
        const clients = await Promise.all([
            new PlainClient(lab, node, { headers: { authorization: `Bearer ${mine}` } }).open(),
            new PlainClient(lab, node, { protocols: ['bearer', mine] }).open(),
            new PlainClient(lab, node, { query: { token: mine } }).open(),
        ]);
        assert.deepEqual(
            clients.map((client) => client.ws.protocol),
            ['', 'bearer', ''],
        );
        const answer = await broadcast(
            node,
            'task_created',
            { id: 7, title: 'tea' },
            { authorization: 'Bearer key' },
        );
        assert.deepEqual([answer.ok, answer.seq, answer.connectedClients], [true, 1, 3]);
        for (const client of clients) {
            const frame = await client.seen.next('task_created');
            assert.deepEqual([frame.payload, frame.seq], [{ id: 7, title: 'tea' }, 1]);
            client.ws.send('{"type":"ping"}');
            await client.seen.next('pong');
        }
        const refused = new PlainClient(lab, node);
        assert.equal(await refused.seen.next('refused'), 401);
        const expiring = await new PlainClient(lab, node, {
            query: { token: token({ sub: 'ann', exp: inSeconds(2) }) },
        }).open();
        const { code, reason } = await expiring.seen.next('close');
        assert.deepEqual([code, /new token/.test(reason)], [4401, true]);
    },
);

scenario(
    'Socket.IO 4 and 2, a browser, ws and POST on three nodes share one sequence of a room',
    async (lab) => {
        const [one, two, three] = await lab.cluster(3, UNLIMITED);
        const four = await lab.member(one, 'four', 'room');
        const old = await lab.member(two, 'old', 'room', { version: '2.5' });
        const plain = await new PlainClient(lab, three, {
            query: { user_id: 'plain', chat: 1 },
        }).open();
        await plain.request('join', { room_id: 'room' });
        const page = await (await lab.browser()).page();
        await page.run(`
        window.seen = []; window.answers = {};
        window.socket = new WebSocket('${two.url.replace('http', 'ws')}/ws?user_id=page&chat=1');
        socket.onmessage = ({ data }) => {
            const { type, payload, ref } = JSON.parse(data);
            if (type === 'message') seen.push(payload);
            if (type === 'ack') answers[ref] = payload;
        };
        window.request = (type, payload) => {
            const ref = Math.random();
            socket.send(JSON.stringify({ type, payload, ref }));
            return new Promise((done) => {
                const poll = () => (answers[ref] ? done(answers[ref]) : setTimeout(poll, 5));
                poll();
            });
        };
        new Promise((done) => { socket.onopen = done; }).then(() => request('join', { room_id: 'room' }))`);
        const rounds = 25;
        await Promise.all([
            (async () => {
                for (let n = 0; n < rounds; n++) await four.send('room', `four ${n}`);
            })(),
            (async () => {
                for (let n = 0; n < rounds; n++) await old.send('room', `old ${n}`);
            })(),
            (async () => {
                for (let n = 0; n < rounds; n++) {
                    await plain.request('message', { room_id: 'room', content: `plain ${n}` });
                }
            })(),
            (async () => {
                for (let n = 0; n < rounds; n++) {
                    assert.equal(
                        (await one.post({ room_id: 'room', content: `post ${n}` })).status,
                        201,
                    );
                }
            })(),
            page.run(`(async () => {
            for (let n = 0; n < ${rounds}; n++) {
                const { ok } = await request('message', { room_id: 'room', content: 'page ' + n });
                if (!ok) throw 1;
            }
        })()`),
        ]);
        const all = rounds * 5;
        await eventually(
            () => [four, old].every((client) => client.received('room').length >= all),
            DEADLINE_MS,
            'the Socket.IO clients receive all messages',
        );
        await eventually(
            () => plain.seen.of('message').length >= all,
            DEADLINE_MS,
            'the plain client receives all messages',
        );
        await eventually(
            async () => (await page.run('seen.length')) >= all,
            DEADLINE_MS,
            'the page receives all messages',
        );
        const sequence = four.received('room');
        assertNoHole(sequence, 1);
        assert.equal(sequence.length, all);
        assert.deepEqual(old.received('room'), sequence);
        assert.deepEqual(
            plain.seen.of('message').map(({ payload }) => payload),
            sequence,
        );
        assert.deepEqual(await page.run('seen'), sequence);
    },
    { timeout: 90_000 },
);

scenario('the first chat page, opened from a file, resumes and sends what was written while its node was down', async (lab) => {
    const redis = await lab.redis();
    const node = await lab.node({ REDIS_URL: redis.url, AUTH_MODE: 'open' });
    const proxy = await lab.proxy(node);
    const browser = await lab.browser();
    const address = encodeURIComponent(proxy.url.replace('http', 'ws'));
    const open = async (name) => {
        const page = await browser.page();
        await page.open(`${FIRST_CHAT}?name=${name}&room=first&url=${address}`);
        await eventually(() => page.run('joined'), DEADLINE_MS, `${name} has joined`);
        return page;
    };
    const write = (page, text) =>
        page.run(
            `document.querySelector('input').value = ${JSON.stringify(text)}; document.querySelector('form').requestSubmit()`,
        );
    const messages = (page) =>
        page.run(
            `[...document.querySelectorAll('#log div:not(.note)')].map((line) => line.textContent)`,
        );
    const ann = await open('ann');
    const bob = await open('bob');
    await write(ann, 'hello');
    await eventually(async () => (await messages(bob)).length === 1, DEADLINE_MS, 'bob sees it');
    proxy.refusing = true;
    await node.kill();
    await eventually(async () => !(await ann.run('joined')), DEADLINE_MS, 'ann is disconnected');
    await write(ann, 'written while away');
    await write(ann, '<b>not markup</b>');
    proxy.node = await lab.node({ REDIS_URL: redis.url, AUTH_MODE: 'open' });
    proxy.refusing = false;
    const expected = ['ann: hello', 'ann: written while away', 'ann: <b>not markup</b>'];
    for (const page of [ann, bob]) {
        await eventually(
            async () => (await messages(page)).length >= 3,
            DEADLINE_MS,
            'the page shows all messages',
        );
        assert.deepEqual(await messages(page), expected);
    }
    assert.equal(await ann.run('outbox.length'), 0);
});

scenario('the example page keeps its list current when its node is killed', async (lab) => {
    const redis = await lab.redis();
    const [one, two] = await Promise.all([
        lab.node({ REDIS_URL: redis.url, ALLOWED_ORIGINS: '*' }),
        lab.node({ REDIS_URL: redis.url, ALLOWED_ORIGINS: '*' }),
    ]);
    const proxy = await lab.proxy(one);
    const html = readFileSync(PAGE);
    const server = createServer((_, response) =>
        response.setHeader('content-type', 'text/html').end(html),
    ).listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
        const page = await (await lab.browser()).page();
        await page.open(
            `http://127.0.0.1:${server.address().port}/tasks.html?url=${encodeURIComponent(`${proxy.url.replace('http', 'ws')}/ws`)}&user_id=ann`,
        );
        const shows = async (...lines) =>
            eventually(
                async () => {
                    const shown = await page.run(
                        `[...document.querySelectorAll('#tasks li')].map((item) => item.textContent)`,
                    );
                    return JSON.stringify(shown) === JSON.stringify(lines);
                },
                DEADLINE_MS,
                `the page shows ${lines}`,
            );
        await eventually(
            () => page.run(`document.getElementById('state').textContent === 'current'`),
            DEADLINE_MS,
            'the page is connected',
        );
        await broadcast(one, 'task_created', { id: 1, title: 'tea' });
        await broadcast(two, 'task_created', { id: 2, title: 'cake' });
        await shows('tea: open', 'cake: open');
        await one.kill();
        proxy.refusing = true;
        await broadcast(two, 'task_status_changed', { id: 1, status: 'done' });
        await broadcast(two, 'task_deleted', { id: 2 });
        await broadcast(two, 'task_created', { id: 3, title: 'bread' });
        proxy.node = two;
        proxy.refusing = false;
        await shows('tea: done', 'bread: open');
        await broadcast(two, 'task_updated', { id: 3, title: 'dark bread' });
        await shows('tea: done', 'dark bread: open');
        // The page reloads its list only after a gap; there was none.
        assert.deepEqual(await page.run('[seen.seq, tasks.size]'), [6, 2]);
    } finally {
        server.close();
    }
});

scenario(
    'a thousand plain clients get each broadcast once although a node is killed',
    async (lab) => {
        const nodes = await lab.cluster(
            3,
            { ...UNLIMITED, RATE_BROADCASTS_PER_SEC: 0 },
            { durable: true },
        );
        const members = Array.from({ length: 1000 }, (_, index) => {
            const member = {
                seq: '',
                epoch: '',
                received: [],
                errors: [],
                home: index % 3,
                positions: 0,
                resumed: 0,
            };
            member.connect = () => {
                const query = new URLSearchParams({
                    user_id: `user-${index}`,
                    since_seq: member.seq,
                    epoch: member.epoch,
                });
                const socket = new WebSocket(
                    `${nodes[member.home].url.replace('http', 'ws')}/ws?${query}`,
                );
                member.socket = socket;
                socket.on('message', (data) => {
                    const { type, payload, seq, epoch } = JSON.parse(data);
                    if (type === 'resumed') {
                        member.positions++;
                        if (payload.gap || (member.seq !== '' && !payload.recovered)) {
                            member.errors.push(payload);
                        }
                        if (member.seq !== '') member.resumed++;
                        else Object.assign(member, { seq: payload.seq, epoch: payload.epoch });
                    } else if (type === 'tick') {
                        Object.assign(member, { seq, epoch });
                        member.received.push(payload);
                    } else member.errors.push(type);
                });
                socket.on('error', () => {});
                socket.on('close', () => {
                    if (member.closing) return;
                    do member.home = (member.home + 1) % 3;
                    while (!nodes[member.home].alive);
                    setTimeout(member.connect, Math.random() * 500);
                });
            };
            member.close = () => {
                member.closing = true;
                member.socket.terminate();
            };
            lab.clients.push(member);
            return member;
        });
        for (let from = 0; from < members.length; from += 100) {
            members.slice(from, from + 100).forEach((member) => member.connect());
            await eventually(
                () => members.slice(from, from + 100).every((member) => member.positions > 0),
                3 * DEADLINE_MS,
                'a hundred clients know their position',
            );
        }
        const count = 60;
        let killed;
        for (let n = 0; n < count; n++) {
            // A broadcast through a dying node may or may not have happened. Its key makes it safe to
            // repeat on another node.
            const send = (node) => broadcast(node, 'tick', n, { 'idempotency-key': `tick-${n}` });
            await send(nodes[n % 3]).catch(() => send(nodes[0]));
            if (n === 20) killed = nodes[1].kill();
        }
        await killed;
        await eventually(
            () => members.every((member) => member.received.length >= count),
            6 * DEADLINE_MS,
            'every client receives every broadcast',
        );
        const expected = Array.from({ length: count }, (_, n) => n);
        for (const member of members) {
            assert.deepEqual(member.received, expected);
            assert.deepEqual(member.errors, []);
        }
        const resumed = members.filter((member) => member.resumed > 0).length;
        assert.ok(resumed >= 300, `only ${resumed} clients resumed`);
    },
    { timeout: 180_000 },
);

scenario('SIGTERM announces a time to each plain client, and closes it with 1012', async (lab) => {
    const [one, two] = await lab.cluster(2, { DRAIN_SECS: 2 });
    const clients = await Promise.all(
        Array.from({ length: 8 }, (_, n) =>
            new PlainClient(lab, one, {
                query: { user_id: `user-${n}`, since_seq: '', epoch: '' },
            }).open(),
        ),
    );
    await broadcast(one, 'tick', 1);
    await Promise.all(clients.map((client) => client.seen.next('tick')));
    one.signal('SIGTERM');
    const times = await Promise.all(
        clients.map(async (client) => {
            const { payload } = await client.seen.next('going_away');
            const { code, reason } = await client.seen.next('close');
            assert.deepEqual([code, /reconnect_in_ms=\d+/.test(reason)], [1012, true]);
            return payload.reconnect_in_ms;
        }),
    );
    assert.equal(new Set(times).size, clients.length, `each client has its own time: ${times}`);
    await broadcast(two, 'tick', 2);
    const { seq, epoch } = clients[0].broadcasts().at(-1);
    const back = await new PlainClient(lab, two, {
        query: { user_id: 'user-0', since_seq: seq, epoch },
    }).open();
    assert.deepEqual((await back.seen.next('resumed')).payload.recovered, true);
    assert.equal((await back.seen.next('tick')).payload, 2);
});
