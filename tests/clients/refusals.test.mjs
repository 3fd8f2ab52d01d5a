// Refusals of a CONNECT as each client understands them: their form, the reason why a token is
// refused, unknown namespaces, and a parser that the server does not support.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import {
    assertRefusal,
    eventually,
    hasAuth,
    inHandshake,
    inSeconds,
    Lab,
    scenario,
    SECRET,
    token,
    TRANSPORTS,
    VERSIONS,
} from './harness.mjs';

const msgpackParser = createRequire(import.meta.url)('socket.io-msgpack-parser');


const CANARY = 'canary-5d1f';

describe('a refused token', { concurrency: 3, timeout: 120_000 }, () => {
    const lab = new Lab();
    let node;
    before(async () => {
        node = await lab.node({
            JWT_SECRET: SECRET,
            JWT_AUDIENCE: 'chat',
            JWT_ISSUER: 'https://app.example',
        });
    });
    after(() => lab.close());

    const valid = { sub: 'ada', aud: 'chat', iss: 'https://app.example' };
    const signed = (claims, options) => token({ ...valid, ...claims }, options);

    for (const version of VERSIONS) {
        for (const [name, transports] of Object.entries(TRANSPORTS)) {
            const form = hasAuth(version) ? 'a message with data' : 'a text';
            test(`client ${version}, ${name}: the refusal is ${form}`, async () => {
                const bad = signed({ exp: inSeconds(-60) });
                const client = lab.client(version, node, {
                    transports,
                    ...inHandshake(version, bad),
                });
                const refusal = await client.seen.next('connect_error');
                assert.equal(refusal, 'token_expired: the token has expired (exp)');
                assert.deepEqual(
                    client.seen.of('connect_error data'),
                    hasAuth(version) ? [{ code: 'token_expired', reason: 'expired' }] : [],
                );
                client.close();
            });
        }
    }

    for (const [reason, bad, claim] of [
        ['missing_exp', signed({ exp: null }), 'exp'],
        ['missing_exp', signed({ exp: `${inSeconds(60)}` }), 'exp'],
        ['signature', signed({}, { secret: 'another-secret' }), 'signature'],
        ['algorithm', signed({}, { header: { alg: 'HS512' } }), 'alg'],
        ['algorithm', signed({}, { header: { alg: 'none' } }), 'alg'],
        ['no_user', signed({ sub: undefined, email: CANARY }), 'user_id'],
        ['no_user', signed({ sub: { $oid: CANARY } }), 'sub'],
        ['no_user', signed({ sub: CANARY.repeat(20) }), 'sub'],
        ['audience', signed({ aud: [CANARY] }), 'aud'],
        ['audience', signed({ aud: undefined }), 'aud'],
        ['issuer', signed({ iss: CANARY }), 'iss'],
        ['expired', signed({ exp: inSeconds(-60) }), 'exp'],
        ['not_yet_valid', signed({ nbf: inSeconds(60) }), 'nbf'],
        ['malformed', signed({ nbf: CANARY }), 'nbf'],
        ['malformed', signed({ rooms: CANARY }), 'rooms'],
        ['malformed', CANARY, 'JSON Web Token'],
    ]) {
        const code = reason === 'expired' ? 'token_expired' : 'unauthorized';
        test(`has the reason ${reason} for its ${claim}, in connect_error, in the answer to authenticate and over REST`, async () => {
            const client = lab.client('4.8', node, { auth: { token: bad } });
            const message = await client.seen.next('connect_error');
            assert.ok(message.startsWith(`${code}: `) && message.includes(claim), message);
            assert.deepEqual(await client.seen.next('connect_error data'), { code, reason });
            client.close();

            const late = await lab.client('4.8', node).connected();
            const answer = await late.ack('authenticate', { token: bad });
            assertRefusal(answer, code);
            assert.equal(answer.reason, reason);
            assert.equal(`${code}: ${answer.error}`, message);
            late.close();

            const headers = { authorization: `Bearer ${bad}` };
            const { status, body } = await node.get('/rooms/room/users', headers);
            assert.deepEqual([status, body.code, body.reason], [401, code, reason]);
        });
    }
});

scenario('the log names the reason and the claim of a refused token, never a value', async (lab) => {
    const node = await lab.node({ JWT_SECRET: SECRET, JWT_ISSUER: 'https://app.example' });
    for (const claims of [{ sub: [CANARY], iss: 'https://app.example' }, { sub: 'a', iss: CANARY }]) {
        const bad = token(claims);
        const client = lab.client('4.8', node, { auth: { token: bad } });
        await client.seen.next('connect_error');
    }
    const lines = () =>
        node.log
            .join('')
            .split('\n')
            .filter((line) => line.includes('connection refused'));
    await eventually(() => lines().length === 2, 5_000, 'two lines in the log');
    const [noUser, issuer] = lines().map((line) => JSON.parse(line));
    assert.equal(noUser.fault, 'no_user');
    assert.match(noUser.reason, /\bsub\b/);
    assert.equal(issuer.fault, 'issuer');
    assert.match(issuer.reason, /\biss\b/);
    assert.ok(!node.log.join('').includes(CANARY));
});

scenario('one odd claim does not shut a user out', async (lab) => {
    const node = await lab.node({ JWT_SECRET: SECRET, BROADCAST_ROLES: 'editor' });
    for (const [claims, user_id, username = user_id] of [
        [{ sub: 4711 }, '4711'],
        [{ user_id: -7, sub: 'b' }, '-7'],
        [{ user_id: Number.MAX_SAFE_INTEGER, name: 'Ann' }, '9007199254740991', 'Ann'],
        [{ user_id: null, sub: 'b' }, 'b'],
        [{ user_id: '', sub: 'b' }, 'b'],
        [{ user_id: { $oid: 'x' }, sub: 'b' }, 'b'],
        [{ id: 12, userId: 'd' }, '12'],
        [{ userId: 'd' }, 'd'],
        [{ sub: 'b', id: 'c', userId: 'd' }, 'b'],
        [{ user: { id: 5, name: ['N'] } }, '5'],
        [{ sub: 'b', username: 5, name: { first: 'A' }, preferred_username: 'ann' }, 'b', 'ann'],
        [{ sub: 'b', username: '', name: 'N'.repeat(129) }, 'b'],
        [{ sub: 'b', name: 'cut \ud83d' }, 'b'],
        [{ sub: 'b', role: 7, user: 'text' }, 'b'],
        [{ sub: 'b', role: ['user', 5, null] }, 'b'],
    ]) {
        const client = lab.client('4.8', node, { auth: { token: token(claims) } });
        const entry = await client.seen.waitFor(({ event }) =>
            ['authenticated', 'connect_error'].includes(event),
        );
        assert.deepEqual(entry.data, { user_id, username });
        client.close();
    }
    // A list of roles is roles.
    const get = (role) =>
        node.get('/users/bob/status', {
            authorization: `Bearer ${token({ sub: 'b', role })}`,
        });
    for (const [role, status] of [
        [['user', 'service'], 200],
        ['admin', 200],
        [['user'], 403],
        [{ admin: true }, 403],
        [['Service', 5], 403],
    ]) {
        assert.equal((await get(role)).status, status, JSON.stringify(role));
    }
});

for (const version of VERSIONS) {
    scenario(`client ${version}: an unknown namespace is refused, also with a query`, async (lab) => {
        const node = await lab.node();
        for (const transports of Object.values(TRANSPORTS)) {
            for (const path of ['/admin', '/admin?token=a%2Cb&x=1']) {
                const client = lab.client(version, `${node.url}${path}`, { transports });
                assert.equal(await client.seen.next('connect_error'), 'Invalid namespace');
                assert.ok(!client.socket.connected);
                client.close();
            }
        }
    });
}

for (const version of VERSIONS.filter(hasAuth)) {
    for (const [name, transports] of Object.entries(TRANSPORTS)) {
        scenario(
            `client ${version}, ${name}: the msgpack parser is refused with a clear text, and the client does not reconnect`,
            async (lab) => {
                const node = await lab.node({ AUTH_TIMEOUT_SECS: 1 });
                for (const [path, auth] of [
                    ['', undefined],
                    ['', { token: 'x', list: [1, 2.5, null, { a: new Uint8Array(3) }] }],
                    ['/admin', undefined],
                ]) {
                    const client = lab.client(version, `${node.url}${path}`, {
                        transports,
                        auth,
                        parser: msgpackParser,
                    });
                    assert.match(
                        await client.seen.next('connect_error'),
                        /^bad_request: .*msgpack parser/,
                    );
                    assert.deepEqual(await client.seen.next('connect_error data'), {
                        code: 'bad_request',
                    });
                    await eventually(
                        () => client.socket.io.engine.readyState === 'closed',
                        5_000,
                        'the transport is closed',
                    );
                    // A client reconnects after 0.1 s to 0.5 s. The sentinel lives for 1 s.
                    const sentinel = await lab
                        .client('4.8', node, { reconnection: false })
                        .connected();
                    await sentinel.seen.next('disconnect');
                    assert.equal(client.seen.of('connect_error').length, 1);
                    assert.equal(client.socket.io.engine.readyState, 'closed');
                }
                const warnings = node.log.join('').match(/socket\.io-msgpack-parser/g);
                assert.equal(warnings?.length, 1, 'one line in the log, not one per client');
            },
        );
    }
}
