// Authentication: tokens in every place where a client can put one, refusals that clients understand,
// and sessions that end with their token.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
    assertRefusal,
    DEADLINE_MS,
    eventually,
    inHandshake,
    inSeconds,
    Lab,
    scenario,
    SECRET,
    token,
    TRANSPORTS,
    VERSIONS,
} from './harness.mjs';

const JWT = { JWT_SECRET: SECRET, AUTH_TIMEOUT_SECS: 1 };

const inHeader = (_, text) => ({ headers: { Authorization: `Bearer ${text}` } });

describe('in jwt mode', { concurrency: 3, timeout: 120_000 }, () => {
    const lab = new Lab();
    let node;
    before(async () => {
        node = await lab.node({ ...JWT, AUTH_TIMEOUT_SECS: 30 });
    });
    after(() => lab.close());

    for (const version of VERSIONS) {
        for (const [name, transports] of Object.entries(TRANSPORTS)) {
            for (const [place, put] of [
                ['the handshake', inHandshake],
                ['a header', inHeader],
            ]) {
                test(`client ${version}, ${name}: a good token in ${place} authenticates at once`, async () => {
                    const good = token({ user_id: 'ada', username: 'Ada' });
                    const client = await lab
                        .client(version, node, { transports, ...put(version, good) })
                        .connected();
                    assert.deepEqual(await client.seen.next('authenticated'), {
                        user_id: 'ada',
                        username: 'Ada',
                    });
                    await client.join('room');
                    client.close();
                });
                for (const [kind, text, code] of [
                    [
                        'a forged',
                        token({ sub: 'ada' }, { secret: 'another-secret' }),
                        'unauthorized',
                    ],
                    ['an expired', token({ sub: 'ada', exp: inSeconds(-60) }), 'token_expired'],
                ]) {
                    test(`client ${version}, ${name}: ${kind} token in ${place} is refused with its code`, async () => {
                        const client = lab.client(version, node, {
                            transports,
                            ...put(version, text),
                        });
                        const message = await client.seen.next('connect_error');
                        assert.ok(message.startsWith(`${code}: `), message);
                        assert.equal(client.seen.of('authenticated').length, 0);
                        client.close();
                    });
                }
            }
            test(`client ${version}, ${name}: authenticate accepts a valid token and refuses others`, async () => {
                const client = await lab.client(version, node, { transports }).connected();
                await client.expectRefusal('unauthorized', 'authenticate', { user_id: 'ada' });
                await client.expectRefusal('unauthorized', 'authenticate', {
                    token: 'not.a.token',
                });
                await client.expectRefusal('token_expired', 'authenticate', {
                    token: token({ sub: 'ada', exp: inSeconds(-5) }),
                });
                await client.expectRefusal('forbidden', 'authenticate', {
                    token: token({ sub: 'ada' }),
                    user_id: 'bob',
                });
                const answer = await client.request('authenticate', {
                    token: token({ sub: 'ada', name: 'Ada L.' }),
                    user_id: 'ada',
                });
                assert.deepEqual(answer, { ok: true, user_id: 'ada', username: 'Ada L.' });
                assert.deepEqual(await client.seen.next('authenticated'), {
                    user_id: 'ada',
                    username: 'Ada L.',
                });
                client.close();
            });
        }
    }

    test('the user id and the name come from the first claim that is present', async () => {
        for (const [claims, user_id, username] of [
            [
                { user_id: 'a', sub: 'b', username: 'c', name: 'd', preferred_username: 'e' },
                'a',
                'c',
            ],
            [{ sub: 'b', name: 'd', preferred_username: 'e' }, 'b', 'd'],
            [{ sub: 'b', preferred_username: 'e' }, 'b', 'e'],
            [{ sub: 'b' }, 'b', 'b'],
        ]) {
            const client = await lab
                .client('4.8', node, { auth: { token: token(claims) } })
                .connected();
            assert.deepEqual(await client.seen.next('authenticated'), { user_id, username });
            client.close();
        }
    });

    test('invalid tokens are refused', async () => {
        const unsigned = [{ alg: 'none' }, { sub: 'ada', exp: inSeconds(60) }]
            .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
            .join('.');
        for (const [description, text, code] of [
            ['without exp', token({ sub: 'ada', exp: null }), 'unauthorized'],
            ['nbf in the future', token({ sub: 'ada', nbf: inSeconds(60) }), 'unauthorized'],
            ['alg none', `${unsigned}.`, 'unauthorized'],
            [
                'alg none with a signature',
                token({ sub: 'ada' }, { header: { alg: 'none' } }),
                'unauthorized',
            ],
            ['another alg', token({ sub: 'ada' }, { header: { alg: 'HS512' } }), 'unauthorized'],
            ['without a user', token({}), 'unauthorized'],
            ['an object as the user', token({ sub: { id: 5 } }), 'unauthorized'],
            ['an empty user', token({ sub: '' }), 'unauthorized'],
            ['a control character', token({ sub: 'a\u0000b' }), 'unauthorized'],
            ['an overlong user', token({ sub: 'a'.repeat(129) }), 'unauthorized'],
            ['exp as text', token({ sub: 'ada', exp: 'tomorrow' }), 'unauthorized'],
            ['empty', '', 'unauthorized'],
            ['two dots', '..', 'unauthorized'],
            ['expired', token({ sub: 'ada', exp: inSeconds(-1) }), 'token_expired'],
        ]) {
            const client = await lab.client('4.8', node).connected();
            const answer = await client.ack('authenticate', { token: text });
            assertRefusal(answer, code, description);
            await client.expectRefusal('unauthorized', 'join', { room_id: 'room' });
            client.close();
        }
        for (const bad of [5, {}, [], true]) {
            const client = await lab.client('4.8', node).connected();
            await client.expectRefusal('bad_request', 'authenticate', { token: bad });
            client.close();
        }
    });

    test('in the auth of a handshake a null token counts as left out, and another type is refused', async () => {
        const without = await lab.client('4.8', node, { auth: { token: null } }).connected();
        await without.expectRefusal('unauthorized', 'join', { room_id: 'room' });
        const wrong = lab.client('4.8', node, { auth: { token: { a: 1 } } });
        const entry = await wrong.seen.waitFor(
            ({ event }) => event === 'connect_error' || event === 'connect',
        );
        assert.equal(entry.event, 'connect_error');
        assert.match(entry.data, /^(unauthorized|bad_request): /);
    });

    test('before authenticate every event, known or unknown, is unauthorized', async () => {
        const client = await lab.client('4.8', node).connected();
        for (const event of [
            'join',
            'leave',
            'message',
            'subscribe_status',
            'unsubscribe_status',
            'history',
            'typing',
            'no_such_event',
        ]) {
            await client.expectRefusal('unauthorized', event, {
                room_id: 'room',
                target_user_id: 'x',
            });
            await client.expectRefusal('unauthorized', event);
            const mark = client.seen.mark();
            client.socket.emit(event, { room_id: 'room' });
            const exception = await client.seen.next(
                'exception',
                (refusal) => refusal.event === event,
                DEADLINE_MS,
                mark,
            );
            assertRefusal(exception, 'unauthorized');
        }
        client.close();
    });

    test('a second authenticate is accepted for the same user only', async () => {
        const client = await lab
            .client('4.8', node, { auth: { token: token({ sub: 'ada' }) } })
            .connected();
        await client.seen.next('authenticated');
        assert.deepEqual(await client.request('authenticate', { user_id: 'ada' }), {
            ok: true,
            user_id: 'ada',
            username: 'ada',
        });
        assert.deepEqual(await client.request('authenticate', { token: token({ sub: 'ada' }) }), {
            ok: true,
            user_id: 'ada',
            username: 'ada',
        });
        await client.expectRefusal('forbidden', 'authenticate', {
            token: token({ sub: 'ada' }),
            user_id: 'bob',
        });
        await client.expectRefusal('already_authenticated', 'authenticate', {
            token: token({ sub: 'bob' }),
        });
        await client.expectRefusal('token_expired', 'authenticate', {
            token: token({ sub: 'ada', exp: inSeconds(-5) }),
        });
        await client.join('still connected');
        client.close();
    });
});

scenario(
    'in open mode a client states its user id, and cannot change it afterwards',
    async (lab) => {
        const node = await lab.node();
        for (const version of VERSIONS) {
            const client = await lab.client(version, node).connected();
            await client.expectRefusal('unauthorized', 'join', { room_id: 'room' });
            await client.expectRefusal('bad_request', 'authenticate', {});
            await client.expectRefusal('bad_request', 'authenticate');
            assert.deepEqual(await client.request('authenticate', { user_id: 'ada' }), {
                ok: true,
                user_id: 'ada',
                username: 'ada',
            });
            assert.deepEqual(
                await client.request('authenticate', { user_id: 'ada', username: 'Ada' }),
                { ok: true, user_id: 'ada', username: 'Ada' },
            );
            await client.expectRefusal('already_authenticated', 'authenticate', { user_id: 'bob' });
            await client.join('room');
        }
    },
);

for (const version of VERSIONS) {
    for (const name of ['polling', 'websocket']) {
        const transports = TRANSPORTS[name];

        scenario(
            `client ${version}, ${name}: at the token's exp the session ends with token_expired, and the client does not reconnect`,
            async (lab) => {
                const node = await lab.node(JWT);
                const connect = (exp) =>
                    lab
                        .client(version, node, {
                            transports,
                            ...inHandshake(version, token({ sub: 'ada', exp })),
                        })
                        .connected();
                const [client, prolonged] = await Promise.all([
                    connect(inSeconds(2)),
                    connect(inSeconds(2)),
                ]);
                await Promise.all(
                    [client, prolonged].map((each) => each.seen.next('authenticated')),
                );
                await prolonged.request('authenticate', {
                    token: token({ sub: 'ada', exp: inSeconds(60) }),
                });
                await client.join('room');

                assertRefusal(await client.seen.next('exception'), 'token_expired');
                await client.seen.next('disconnect', (reason) => reason === 'io server disconnect');
                // A client reconnects after 0.1 s. The sentinel's session ends one whole token lifetime
                // later.
                const sentinel = await connect(inSeconds(2));
                await sentinel.seen.next('disconnect');
                assert.equal(client.seen.of('connect').length, 1);
                assert.equal(client.seen.of('connect_error').length, 0);
                await prolonged.join('room');
            },
        );

        scenario(
            `client ${version}, ${name}: the transport of a client that does not authenticate in time is closed, and the client reconnects and logs in`,
            async (lab) => {
                const node = await lab.node(JWT);
                const start = Date.now();
                const client = await lab.client(version, node, { transports }).connected();
                const reason = await client.seen.next('disconnect');
                assert.ok(reason.startsWith('transport '), reason);
                assert.ok(Date.now() - start >= 900, 'not before AUTH_TIMEOUT_SECS');
                await eventually(
                    () => client.seen.of('connect').length === 2,
                    DEADLINE_MS,
                    'the client reconnects by itself',
                );
                await client.request('authenticate', { token: token({ sub: 'ada' }) });
                await client.join('room');
                assert.deepEqual(client.seen.of('exception'), []);
            },
        );
    }
}

scenario(
    'clients do not reconnect after a refused handshake, even when its transport is closed after AUTH_TIMEOUT_SECS',
    async (lab) => {
        const node = await lab.node(JWT);
        const forged = token({ sub: 'ada' }, { secret: 'another-secret' });
        const expired = token({ sub: 'ada', exp: inSeconds(-60) });
        const clients = VERSIONS.flatMap((version) =>
            Object.values(TRANSPORTS).flatMap((transports) => [
                lab.client(version, node, { transports, ...inHandshake(version, forged) }),
                lab.client(version, node, { transports, ...inHeader(version, expired) }),
            ]),
        );
        await Promise.all(clients.map((client) => client.seen.next('connect_error')));
        // After two whole time-outs each client has had time to reconnect.
        for (let turn = 0; turn < 2; turn++) {
            const sentinel = await lab.client('4.8', node, { reconnection: false }).connected();
            await sentinel.seen.next('disconnect');
        }
        for (const client of clients) {
            assert.equal(
                client.seen.of('connect_error', (message) =>
                    /^(unauthorized|token_expired): /.test(message),
                ).length,
                1,
                `client ${client.version} reconnected`,
            );
            assert.ok(!client.socket.connected);
        }
        // The last sentinel may still be connected; no other client is.
        const left = async () => (await node.get('/health')).body.connectedClients;
        assert.ok((await left()) <= 1);
        await eventually(
            async () => (await left()) === 0,
            DEADLINE_MS,
            'the sentinel is disconnected',
        );
    },
);

scenario('JWT_LEEWAY_SECS tolerates a clock difference', async (lab) => {
    const node = await lab.node({ ...JWT, JWT_LEEWAY_SECS: 30, AUTH_TIMEOUT_SECS: 10 });
    const client = await lab
        .client('4.8', node, {
            auth: { token: token({ sub: 'ada', exp: inSeconds(-10), nbf: inSeconds(10) }) },
        })
        .connected();
    await client.seen.next('authenticated');
    const late = lab.client('4.8', node, {
        auth: { token: token({ sub: 'ada', exp: inSeconds(-40) }) },
    });
    assert.match(await late.seen.next('connect_error'), /^token_expired: /);
});

scenario(
    'at MAX_UNAUTHENTICATED the oldest client that has not authenticated makes way after 10 s, and comes back',
    async (lab) => {
        const node = await lab.node({ ...JWT, AUTH_TIMEOUT_SECS: 600, MAX_UNAUTHENTICATED: 1 });
        for (const [version, transports] of [
            ['2.5', TRANSPORTS.websocket],
            ['4.8', TRANSPORTS.polling],
        ]) {
            const start = Date.now();
            const idle = await lab.client(version, node, { transports }).connected();
            // Refused with 503 at first. The client tries again by itself.
            const late = await lab.client(version, node, { transports }).connected(20_000);
            assert.ok(Date.now() - start >= 9_000, 'a young connection does not make way');
            assert.ok((await idle.seen.next('disconnect')).startsWith('transport '));
            await late.request('authenticate', { token: token({ sub: 'late' }) });
            await eventually(
                () => idle.seen.of('connect').length === 2,
                DEADLINE_MS,
                'the client that made way is back',
            );
            await idle.request('authenticate', { token: token({ sub: 'idle' }) });
            idle.close();
            late.close();
        }
    },
);
