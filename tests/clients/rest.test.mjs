// The REST interface: every route, every refusal with its status and code, and the permissions.

import assert from 'node:assert/strict';
import { assertNoHole, inSeconds, onEachBackplane, scenario, SECRET, token } from './harness.mjs';

const KEY = 'an-api-key-of-a-service';

function assertRefused(answer, status, code) {
    const shown = JSON.stringify({ status: answer.status, body: answer.body });
    assert.equal(answer.status, status, shown);
    assert.equal(answer.body.code, code, shown);
    assert.ok(typeof answer.body.error === 'string' && answer.body.error.length > 0, shown);
    assert.ok(
        typeof answer.body.request_id === 'string' && answer.body.request_id.length > 0,
        shown,
    );
    if (status === 429 || status === 503) {
        assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/, shown);
    }
}

onEachBackplane(
    'POST /messages delivers to every member, in the one order of the room',
    {},
    async (lab, [near, far]) => {
        const room_id = 'news';
        const member = await lab.member(far, 'ada', room_id);
        const first = await near.post({ room_id, content: 'hello' });
        assert.equal(first.status, 201);
        const { id, epoch, timestamp } = first.body;
        assert.deepEqual(first.body, {
            ok: true,
            id,
            room_id,
            seq: 1,
            epoch,
            timestamp,
            duplicate: false,
        });
        assert.deepEqual(await member.receives(room_id, 'hello'), {
            id,
            room_id,
            seq: 1,
            version: 1,
            epoch,
            user_id: 'system',
            username: 'System',
            content: 'hello',
            type: 'text',
            attachment_urls: [],
            timestamp,
        });
        await member.send(room_id, 'from a member');
        const full = {
            room_id,
            content: 'full',
            user_id: 'bot',
            username: 'Bot',
            type: 'card',
            title: 'T',
            payload: { a: [1] },
            attachment_urls: ['http://x.example/y'],
        };
        const second = await far.post(full, { 'content-type': 'application/json; charset=utf-8' });
        assert.equal(second.body.seq, 3);
        const {
            seq,
            version,
            epoch: _,
            id: __,
            timestamp: ___,
            ...shown
        } = await member.receives(room_id, 'full');
        assert.deepEqual([seq, version, shown], [3, 3, full]);

        // A message with no content needs a payload or an attachment.
        assert.equal((await near.post({ room_id, payload: { only: true } })).status, 201);
        assert.equal(
            (await near.post({ room_id, attachment_urls: ['https://x.example/'] })).status,
            201,
        );
        assertRefused(await near.post({ room_id }), 400, 'bad_request');

        // Repeated sends.
        const once = await near.post(
            { room_id, content: 'once', user_id: 'bot' },
            { 'idempotency-key': 'k1' },
        );
        const again = await far.post({
            room_id,
            content: 'once',
            user_id: 'bot',
            client_msg_id: 'k1',
        });
        assert.deepEqual([once.status, again.status], [201, 200]);
        assert.deepEqual(again.body, { ...once.body, duplicate: true });
        assert.equal(
            (
                await near.post(
                    { room_id, content: 'once', user_id: 'another' },
                    { 'idempotency-key': 'k1' },
                )
            ).status,
            201,
        );
        assert.equal((await near.post({ room_id, content: 'sentinel' })).status, 201);
        await member.receives(room_id, 'sentinel');
        assertNoHole(member.received(room_id), 1);
        assert.equal(
            member.received(room_id).filter((message) => message.content === 'once').length,
            2,
        );
    },
);

scenario('POST /messages refuses invalid requests with the right status and code', async (lab) => {
    const node = await lab.node();
    const room_id = 'room';
    const content = 'x';
    const deep = (levels) => JSON.parse('['.repeat(levels) + ']'.repeat(levels));
    for (const [body, status, code] of [
        [{}, 400, 'bad_request'],
        [[], 400, 'bad_request'],
        [null, 400, 'bad_request'],
        ['text', 400, 'bad_request'],
        [5, 400, 'bad_request'],
        [{ content }, 400, 'bad_request'],
        [{ room_id: 5, content }, 400, 'bad_request'],
        [{ room_id: '', content }, 400, 'bad_request'],
        [{ room_id: 'a\nb', content }, 400, 'bad_request'],
        [{ room_id: 'r'.repeat(129), content }, 413, 'too_large'],
        [{ room_id, content: 5 }, 400, 'bad_request'],
        [{ room_id, content: 'x'.repeat(16_385) }, 413, 'too_large'],
        [{ room_id, content: '\ud800' }, 400, 'bad_request'],
        [{ room_id, content, user_id: 5 }, 400, 'bad_request'],
        [{ room_id, content, user_id: '' }, 400, 'bad_request'],
        [{ room_id, content, user_id: 'u'.repeat(129) }, 413, 'too_large'],
        [{ room_id, content, username: '' }, 400, 'bad_request'],
        [{ room_id, content, username: 'u'.repeat(129) }, 413, 'too_large'],
        [{ room_id, content, type: '' }, 400, 'bad_request'],
        [{ room_id, content, type: 't'.repeat(65) }, 413, 'too_large'],
        [{ room_id, content, title: 't'.repeat(257) }, 413, 'too_large'],
        [{ room_id, payload: 'p'.repeat(16_384) }, 413, 'too_large'],
        [{ room_id, payload: deep(33) }, 413, 'too_large'],
        [{ room_id, content, attachment_urls: 'https://x.example' }, 400, 'bad_request'],
        [{ room_id, content, attachment_urls: ['ftp://x.example'] }, 400, 'bad_request'],
        [
            { room_id, content, attachment_urls: Array(11).fill('https://x.example') },
            413,
            'too_large',
        ],
        [{ room_id, content, client_msg_id: '' }, 400, 'bad_request'],
        [{ room_id, content, client_msg_id: 'c'.repeat(65) }, 413, 'too_large'],
        [{ room_id, content, other: 'x'.repeat(70_000) }, 413, 'too_large'],
    ]) {
        assertRefused(await node.post(body), status, code);
    }
    const json = { 'content-type': 'application/json' };
    for (const [raw, headers, status, code] of [
        ['', json, 400, 'bad_request'],
        ['{', json, 400, 'bad_request'],
        ['{"room_id":"a","content":"x"} x', json, 400, 'bad_request'],
        [Buffer.from([0x22, 0xff, 0x22]), json, 400, 'bad_request'],
        ['['.repeat(50_000), json, 400, ['bad_request', 'too_large']],
        [
            `{"room_id":"a","payload":${'['.repeat(5_000)}${']'.repeat(5_000)}}`,
            json,
            413,
            'too_large',
        ],
        ['x'.repeat(2_000_000), json, 413, 'too_large'],
        [
            '{"room_id":"a","content":"x"}',
            { 'content-type': 'text/plain' },
            415,
            'unsupported_media_type',
        ],
        [
            'room_id=a&content=x',
            { 'content-type': 'application/x-www-form-urlencoded' },
            415,
            'unsupported_media_type',
        ],
        [Buffer.from('{"room_id":"a","content":"x"}'), {}, 415, 'unsupported_media_type'],
        [
            '{"room_id":"a","content":"x"}',
            { ...json, 'idempotency-key': 'k'.repeat(65) },
            413,
            'too_large',
        ],
        [
            '{"room_id":"a","content":"x","client_msg_id":"one"}',
            { ...json, 'idempotency-key': 'two' },
            400,
            'bad_request',
        ],
    ]) {
        const answer = await node.rest('POST', '/messages', { raw, headers });
        assertRefused(
            answer,
            status,
            [code].flat().find((each) => each === answer.body.code) ?? code,
        );
    }
    assert.equal(
        (
            await node.post({
                room_id,
                content: 'x'.repeat(16_384),
                payload: deep(32),
                unknown: [{}],
            })
        ).status,
        201,
    );
});

onEachBackplane('messages, members and statuses can be read', {}, async (lab, [near, far]) => {
    const room_id = 'a room/with ?odd&signs';
    const route = `/rooms/${encodeURIComponent(room_id)}`;
    const users = ['ada', 'bob', 'cyd', 'dan', 'eve'];
    for (const [index, user] of users.entries()) {
        await lab.member(index % 2 ? near : far, user, room_id, { username: user.toUpperCase() });
    }
    for (let index = 1; index <= 9; index++) await near.post({ room_id, content: `${index}` });

    const messages = async (query) => {
        const { status, body } = await far.get(`${route}/messages${query}`);
        assert.equal(status, 200, JSON.stringify(body));
        return [body.messages.map((message) => message.seq).join(), body.has_more, body.seq];
    };
    assert.deepEqual(await messages(''), ['1,2,3,4,5,6,7,8,9', false, 9]);
    assert.deepEqual(await messages('?limit=2'), ['8,9', true, 9]);
    assert.deepEqual(await messages('?after_seq=3&limit=2'), ['4,5', true, 9]);
    assert.deepEqual(await messages('?before_seq=3&limit=5'), ['1,2', false, 9]);
    assert.deepEqual(await messages('?after_seq=9'), ['', false, 9]);
    for (const query of [
        '?after_seq=1&before_seq=5',
        '?limit=0',
        '?limit=201',
        '?limit=x',
        '?after_seq=-1',
        '?before_seq=1.5',
    ]) {
        assertRefused(await far.get(`${route}/messages${query}`), 400, 'bad_request');
    }
    const empty = await far.get('/rooms/never-seen/messages');
    assert.deepEqual([empty.status, empty.body.messages, empty.body.seq], [200, [], 0]);

    const all = await near.get(`${route}/users`);
    assert.deepEqual(
        {
            ...all.body,
            users: all.body.users.toSorted((a, b) => a.user_id.localeCompare(b.user_id)),
        },
        {
            room_id,
            users: users.map((user) => ({ user_id: user, username: user.toUpperCase() })),
            total: 5,
        },
    );
    const paged = [];
    for (let cursor, turn = 0; turn === 0 || cursor; turn++) {
        assert.ok(turn < 6, 'the cursor ends');
        const page = (
            await far.get(
                `${route}/users?limit=2${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`,
            )
        ).body;
        assert.equal(page.total, 5);
        assert.ok(page.users.length <= 2);
        paged.push(...page.users.map((user) => user.user_id));
        cursor = page.next_cursor;
    }
    assert.deepEqual(paged.toSorted(), users);
    for (const query of ['?limit=0', '?limit=1001', '?limit=x']) {
        assertRefused(await near.get(`${route}/users${query}`), 400, 'bad_request');
    }
    assert.deepEqual((await near.get('/rooms/never-seen/users')).body, {
        room_id: 'never-seen',
        users: [],
        total: 0,
    });

    const { body: ada } = await near.get('/users/ada/status');
    assert.deepEqual(ada, {
        user_id: 'ada',
        username: 'ADA',
        is_online: true,
        last_seen: ada.last_seen,
        version: ada.version,
    });
    assert.ok(ada.version > 0 && !Number.isNaN(Date.parse(ada.last_seen)));
    assert.deepEqual((await near.get('/users/nobody/status')).body, {
        user_id: 'nobody',
        is_online: false,
        version: 0,
    });
    for (const bad of [
        '/users/%00/status',
        '/users/%ff/status',
        `/rooms/${'%0A'}/users`,
        `/rooms/${'%0A'}/messages`,
    ]) {
        assertRefused(await near.get(bad), 400, 'bad_request');
    }
    assertRefused(await near.get(`/users/${'u'.repeat(129)}/status`), 413, 'too_large');
    assertRefused(await near.get(`/rooms/${'r'.repeat(129)}/users`), 413, 'too_large');
});

scenario('unknown routes, wrong methods, health and metrics', async (lab) => {
    const node = await lab.node();
    for (const route of ['/', '/nothing', '/rooms', '/rooms/x', '/users/x', '/messages/x']) {
        assertRefused(await node.get(route), 404, 'not_found');
    }
    for (const [method, route, allow] of [
        ['GET', '/messages', 'POST'],
        ['DELETE', '/messages', 'POST'],
        ['PUT', '/messages', 'POST'],
        ['POST', '/health', 'GET'],
        ['POST', '/rooms/x/messages', 'GET'],
        ['POST', '/rooms/x/users', 'GET'],
        ['DELETE', '/users/x/status', 'GET'],
        ['POST', '/metrics', 'GET'],
    ]) {
        const answer = await node.rest(method, route);
        assertRefused(answer, 405, 'method_not_allowed');
        assert.match(answer.headers.get('allow') ?? '', new RegExp(allow), `${method} ${route}`);
    }
    await lab.user(node, 'one');
    const health = await node.get('/health');
    assert.deepEqual(
        [health.status, health.body.status, health.body.connectedClients],
        [200, 'ok', 1],
    );
    for (const route of ['/livez', '/readyz']) assert.equal((await node.get(route)).status, 200);
    const metrics = await node.get('/metrics');
    assert.equal(metrics.status, 200);
    assert.match(metrics.body, /^# (HELP|TYPE) /m);
});

scenario('in jwt mode API keys, roles and memberships decide about each route', async (lab) => {
    const node = await lab.node({
        JWT_SECRET: SECRET,
        API_KEYS: `another-key-of-some-length,${KEY}`,
    });
    const bearer = (text) => ({ authorization: `Bearer ${text}` });
    const roomRoutes = ['/rooms/den/messages', '/rooms/den/users'];
    const serviceRoutes = ['/users/ada/status', '/metrics'];
    for (const route of ['/health', '/livez', '/readyz']) {
        assert.equal((await node.get(route)).status, 200);
    }

    const refusedEverywhere = async (headers, code) => {
        for (const route of [...roomRoutes, ...serviceRoutes]) {
            assertRefused(await node.get(route, headers), 401, code);
        }
        assertRefused(await node.post({ room_id: 'den', content: 'x' }, headers), 401, code);
    };
    await refusedEverywhere({}, 'unauthorized');
    await refusedEverywhere(bearer('a-key-that-is-not-one'), 'unauthorized');
    await refusedEverywhere({ authorization: 'Basic YTpi' }, 'unauthorized');
    await refusedEverywhere(
        bearer(token({ sub: 'ada', role: 'admin' }, { secret: 'forged' })),
        'unauthorized',
    );
    await refusedEverywhere(
        bearer(token({ sub: 'ada', role: 'admin', exp: inSeconds(-9) })),
        'token_expired',
    );

    for (const headers of [
        bearer(KEY),
        bearer('another-key-of-some-length'),
        bearer(token({ sub: 's', role: 'service' })),
        bearer(token({ sub: 's', role: 'admin' })),
    ]) {
        for (const route of [...roomRoutes, ...serviceRoutes]) {
            assert.equal((await node.get(route, headers)).status, 200, route);
        }
        assert.equal(
            (await node.post({ room_id: 'den', content: 'x', user_id: 'anyone' }, headers)).status,
            201,
        );
    }

    const user = bearer(token({ sub: 'ada' }));
    const wrongRole = bearer(token({ sub: 'ada', role: 'moderator' }));
    for (const headers of [user, wrongRole]) {
        for (const route of roomRoutes) {
            assertRefused(await node.get(route, headers), 403, 'not_in_room');
        }
        for (const route of serviceRoutes) {
            assertRefused(await node.get(route, headers), 403, 'forbidden');
        }
        assertRefused(await node.post({ room_id: 'den', content: 'x' }, headers), 403, 'forbidden');
    }
    const client = await lab
        .client('4.8', node, { auth: { token: token({ sub: 'ada' }) } })
        .connected();
    await client.join('den');
    for (const route of roomRoutes) assert.equal((await node.get(route, user)).status, 200);
    assertRefused(await node.get('/rooms/elsewhere/messages', user), 403, 'not_in_room');
    await client.request('leave', { room_id: 'den' });
    for (const route of roomRoutes) assertRefused(await node.get(route, user), 403, 'not_in_room');
});
