// Hostile and odd input: every request is answered with the right code, and the connection and the node
// keep working afterwards.

import assert from 'node:assert/strict';
import {
    assertRefusal,
    DEADLINE_MS,
    onEachBackplane,
    RawClient,
    scenario,
    TRANSPORTS,
    UNLIMITED,
    VERSIONS,
} from './harness.mjs';

const nested = (levels, core = []) => {
    for (let level = 1; level < levels; level++) core = [core];
    return core;
};
const long = (length) => 'x'.repeat(length);
const room_id = 'home';
const content = 'x';

/** Payloads that no event with a required field can accept. */
const NOT_A_REQUEST = [
    ['no argument', []],
    ['undefined', [undefined]],
    ['null', [null]],
    ['a number', [5]],
    ['NaN', [NaN]],
    ['text', ['text']],
    ['true', [true]],
    ['an array', [[]]],
    ['an array around it', [[{ room_id: 'home', target_user_id: 'x', content: 'x' }]]],
    ['an empty object', [{}]],
    ['a buffer', [Buffer.from('hello')]],
    ['an array buffer', [new Uint8Array([1, 2, 3]).buffer]],
    ['an array of 500 levels', [nested(500)]],
    ['text that is JSON', ['{"room_id":"home"}']],
    ['a valid request as the second argument', [null, { room_id: 'home', target_user_id: 'x' }]],
]
    .map(([title, args]) => [title, args, 'bad_request'])
    .concat([
        ['an array of 50,000 numbers', [Array(50_000).fill(1)], ['too_large', 'bad_request']],
    ]);

/** Values that are invalid for every identifier. */
const NOT_AN_ID = [
    [5, 'bad_request'],
    [true, 'bad_request'],
    [null, 'bad_request'],
    [{}, 'bad_request'],
    [['home'], 'bad_request'],
    [NaN, 'bad_request'],
    ['', 'bad_request'],
    ['a\u0000b', 'bad_request'],
    ['a\nb', 'bad_request'],
    ['\u007f', 'bad_request'],
    ['a\u0085', 'bad_request'],
    ['\ud800', 'bad_request'],
    ['a\udc00b', 'bad_request'],
    [Buffer.from('home'), 'bad_request'],
    [long(129), 'too_large'],
    ['é'.repeat(65), 'too_large'],
    [long(60_000), 'too_large'],
];
const NOT_A_SEQ = [
    -1,
    1.5,
    '5',
    '',
    true,
    [5],
    {},
    1e300,
    2 ** 64,
    -(2 ** 63),
    Buffer.from([1]),
].map((value) => [value, 'bad_request']);
const NOT_TEXT = [5, true, {}, [], ['x'], '\ud800', Buffer.from('x')].map((value) => [
    value,
    'bad_request',
]);

const field = (event, base, name, values) =>
    values.map(([value, code]) => [
        `${event} with ${name} = ${Buffer.isBuffer(value) ? 'a buffer' : JSON.stringify(value)?.slice(0, 40)}`,
        event,
        [{ ...base, [name]: value }],
        code,
    ]);
const whole = (event) =>
    NOT_A_REQUEST.map(([title, args, code]) => [`${event} with ${title}`, event, args, code]);

/**
 * Requests of an authenticated connection in the room `home`:
 * `[title, event, arguments, expected code(s) or 'ok']`.
 */
const CASES = [
    ...[
        'join',
        'leave',
        'message',
        'subscribe_status',
        'unsubscribe_status',
        'history',
        'typing',
        'authenticate',
    ].flatMap(whole),
    ...['join', 'leave', 'message', 'history', 'typing'].flatMap((event) =>
        field(event, { content }, 'room_id', NOT_AN_ID),
    ),
    ...['subscribe_status', 'unsubscribe_status'].flatMap((event) =>
        field(event, {}, 'target_user_id', NOT_AN_ID),
    ),
    ...field('authenticate', {}, 'user_id', NOT_AN_ID),
    ...field('authenticate', { user_id: 'ada' }, 'username', [
        ...NOT_TEXT,
        ['', 'bad_request'],
        [long(129), 'too_large'],
    ]),

    ...field('join', { room_id }, 'since_seq', NOT_A_SEQ),
    ...field('join', { room_id }, 'limit', [
        ...NOT_A_SEQ,
        [201, 'bad_request'],
        [200, 'ok'],
        [0, 'ok'],
    ]),
    ...field('join', { room_id, since_seq: 0 }, 'epoch', NOT_TEXT),
    ['join with since_seq and limit', 'join', [{ room_id, since_seq: 0, limit: 5 }], 'bad_request'],
    [
        'join with NaN, which is sent as null and counts as absent',
        'join',
        [{ room_id, since_seq: NaN, limit: null, epoch: undefined }],
        'ok',
    ],
    ['join with an extra argument', 'join', [{ room_id }, 'extra', { room_id: 5 }], 'ok'],
    ['join with an extra buffer', 'join', [{ room_id }, Buffer.from('x')], ['ok', 'bad_request']],
    [
        'join with unknown fields',
        'join',
        [{ room_id, constructor: 1, nested: nested(20), toString: null }],
        'ok',
    ],

    ...field('history', { room_id }, 'limit', [
        ...NOT_A_SEQ,
        [0, 'bad_request'],
        [201, 'bad_request'],
        [200, 'ok'],
    ]),
    ...['before_seq', 'after_seq'].flatMap((name) =>
        field('history', { room_id }, name, NOT_A_SEQ),
    ),
    [
        'history with before_seq and after_seq',
        'history',
        [{ room_id, before_seq: 5, after_seq: 1 }],
        'bad_request',
    ],

    ...field('typing', { room_id }, 'is_typing', [
        [1, 'bad_request'],
        ['true', 'bad_request'],
        [[], 'bad_request'],
        [{}, 'bad_request'],
        [null, 'ok'],
    ]),

    ...field('message', { room_id }, 'content', [
        ...NOT_TEXT,
        [long(16_384), 'ok'],
        [long(16_385), 'too_large'],
        ['é'.repeat(8_193), 'too_large'],
        [long(65_000), 'too_large'],
    ]),
    ...field('message', { room_id, content }, 'type', [
        ...NOT_TEXT,
        ['', 'bad_request'],
        [long(64), 'ok'],
        [long(65), 'too_large'],
    ]),
    ...field('message', { room_id, content }, 'title', [
        ...NOT_TEXT,
        [long(256), 'ok'],
        [long(257), 'too_large'],
    ]),
    ...field('message', { room_id, content }, 'client_msg_id', [
        ...NOT_TEXT,
        ['', 'bad_request'],
        [long(65), 'too_large'],
    ]),
    ...field('message', { room_id, content }, 'payload', [
        [nested(32), 'ok'],
        [nested(33), 'too_large'],
        [nested(500), 'too_large'],
        [nested(32, { a: 1 }), 'ok'],
        [nested(33, { a: 1 }), 'too_large'],
        [long(16_382), 'ok'],
        [long(16_383), 'too_large'],
        ['\ud800', 'bad_request'],
        [{ '\ud800': 1 }, 'bad_request'],
        [Buffer.from('x'), 'bad_request'],
        [{ deep: [Buffer.from('x')] }, 'bad_request'],
        [0, 'ok'],
        [false, 'ok'],
        ['', 'ok'],
    ]),
    ...field('message', { room_id, content }, 'attachment_urls', [
        ['https://example.com', 'bad_request'],
        [{}, 'bad_request'],
        [[5], 'bad_request'],
        [[null], 'bad_request'],
        [[''], 'bad_request'],
        [['x'], 'bad_request'],
        [['ftp://example.com'], 'bad_request'],
        [['javascript:alert(1)'], 'bad_request'],
        [['data:text/html,x'], 'bad_request'],
        [['https://'], 'bad_request'],
        [['\ud800'], 'bad_request'],
        [[['https://example.com']], 'bad_request'],
        [[Buffer.from('https://example.com')], 'bad_request'],
        [Array(10).fill('https://example.com'), 'ok'],
        [Array(11).fill('https://example.com'), 'too_large'],
        [[`https://example.com/${long(2028)}`], 'ok'],
        [[`https://example.com/${long(2029)}`], 'too_large'],
        [[], 'ok'],
    ]),
    ['message with nothing in it', 'message', [{ room_id }], 'bad_request'],
    [
        'message with nothing but empty attachments',
        'message',
        [{ room_id, attachment_urls: [] }],
        'bad_request',
    ],
    [
        'message with NaN as content, which is sent as null',
        'message',
        [{ room_id, content: NaN }],
        'bad_request',
    ],
    ['message with a payload alone', 'message', [{ room_id, payload: {} }], 'ok'],
    [
        'message with an attachment alone',
        'message',
        [{ room_id, attachment_urls: ['http://example.com/'] }],
        'ok',
    ],
    [
        'message of 70,000 bytes in an unknown field',
        'message',
        [{ room_id, content, other: long(70_000) }],
        'too_large',
    ],
    ['message of 900,000 bytes', 'message', [{ room_id, content: long(900_000) }], 'too_large'],
    [
        'message of 100,000 characters in a second argument',
        'message',
        [{ room_id, content }, long(100_000)],
        ['ok', 'too_large'],
    ],
    [
        'message of 200 buffers',
        'message',
        [{ room_id, content, payload: Array(200).fill(Buffer.from('x')) }],
        ['bad_request', 'too_large'],
    ],

    ...['leave', 'message', 'history', 'typing'].map((event) => [
        `${event} for a room without being a member`,
        event,
        [{ room_id: 'elsewhere', content }],
        'not_in_room',
    ]),
    ...[
        'no_such_event',
        '__proto__',
        'constructor',
        'toString',
        'exception',
        'Join',
        'join ',
        ' ',
        '😀',
        'message.x',
        'authenticated',
        long(300),
    ].flatMap((event) =>
        [[{ room_id }], [], [Buffer.from('x')], [nested(100)]].map((args, index) => [
            `unknown event ${JSON.stringify(event.slice(0, 20))} (${index})`,
            event,
            args,
            'unknown_event',
        ]),
    ),
];

/**
 * Sends one case with an acknowledgement, and again without. A `sentinel` request after it proves that
 * all answers have arrived and that the connection works.
 */
async function tryBoth(client, [title, event, args, expected], sentinel) {
    const check = (answer) =>
        answer.ok && [expected].flat().includes('ok')
            ? undefined
            : assertRefusal(answer, expected, title);
    const [answer] = await Promise.all([client.ack(event, ...args), sentinel()]);
    if (expected === 'ok') assert.equal(answer.ok, true, `${title} → ${JSON.stringify(answer)}`);
    else check(answer);

    const mark = client.seen.mark();
    client.socket.emit(event, ...args);
    await sentinel();
    const exceptions = client.seen.of('exception', undefined, mark);
    if (answer.ok) return assert.deepEqual(exceptions, [], title);
    assert.equal(exceptions.length, 1, `${title}, without ack: ${JSON.stringify(exceptions)}`);
    assert.equal(exceptions[0].event, event, title);
    check(exceptions[0]);
}

for (const version of VERSIONS) {
    for (const name of ['polling', 'websocket']) {
        scenario(
            `client ${version}, ${name}: each of ${CASES.length} bad or odd requests is answered, with ack and without`,
            async (lab) => {
                const node = await lab.node(UNLIMITED);
                const enter = () =>
                    lab.member(node, 'ada', room_id, { version, transports: TRANSPORTS[name] });
                let client = await enter();
                // Continues after a failure, so that one run reports several.
                const failures = [];
                for (const one of CASES) {
                    try {
                        await tryBoth(client, one, () =>
                            client.request('history', { room_id, limit: 1 }),
                        );
                        await client.join(room_id);
                        assert.equal(
                            client.seen.of('disconnect').length,
                            0,
                            `${one[0]}: the connection was closed`,
                        );
                    } catch (error) {
                        failures.push(error.message);
                        if (failures.length > 5) break;
                        client.close();
                        client = await enter();
                    }
                }
                assert.deepEqual(failures, []);
            },
            { timeout: 120_000 },
        );

        scenario(
            `client ${version}, ${name}: bad requests before authenticate are answered`,
            async (lab) => {
                // Longer than the test takes: the client stays unauthenticated until its end.
                const node = await lab.node({ ...UNLIMITED, AUTH_TIMEOUT_SECS: 120 });
                const client = await lab
                    .client(version, node, { transports: TRANSPORTS[name] })
                    .connected();
                for (const one of CASES) {
                    // Other events are `unauthorized` even if their payload is bad. authenticate
                    // refuses a bad payload with its own code.
                    const [title, event, args, code] = one;
                    const expected = event === 'authenticate' ? code : 'unauthorized';
                    await tryBoth(
                        client,
                        [title, event, args, [expected, 'too_large'].flat()],
                        () => client.expectRefusal('unauthorized', 'no_such_event'),
                    );
                }
                await client.authenticate('ada');
            },
            { timeout: 120_000 },
        );
    }
}

scenario('JSON that no official client would send is answered', async (lab) => {
    const node = await lab.node(UNLIMITED);
    const raw = await lab.raw(node).connected();
    const enter = async (client) => {
        assert.equal((await client.ack('"authenticate"', '{"user_id":"raw"}')).ok, true);
        assert.equal((await client.ack('"join"', '{"room_id":"home"}')).ok, true);
    };
    await enter(raw);
    const arrays = (levels) => '['.repeat(levels) + ']'.repeat(levels);
    const objects = (levels) => `${'{"a":'.repeat(levels - 1)}{}${'}'.repeat(levels - 1)}`;
    const message = (more) => `{"room_id":"home","content":"x",${more}}`;
    const deep = [33, 64, 127, 128, 129, 200, 1_000, 5_000, 10_000, 30_000, 100_000];
    const anyAnswer = ['ok', 'bad_request', 'too_large'];
    const cases = [
        ...[1, 10, 31, 32].flatMap((levels) =>
            [arrays(levels), objects(levels)].map((json) => [
                'message',
                message(`"payload":${json}`),
                'ok',
            ]),
        ),
        ...deep.flatMap((levels) =>
            [arrays(levels), objects(levels)].map((json) => [
                'message',
                message(`"payload":${json}`),
                'too_large',
            ]),
        ),
        ...deep.flatMap((levels) =>
            [arrays(levels), objects(levels)].map((json) => [
                'message',
                message(`"other":${json}`),
                anyAnswer,
            ]),
        ),
        ...deep.map((levels) => [
            'message',
            message(`"title":${arrays(levels)}`),
            ['bad_request', 'too_large'],
        ]),
        ...['join', 'leave', 'typing', 'history', 'subscribe_status', 'authenticate'].flatMap(
            (event) => deep.map((levels) => [event, arrays(levels), ['bad_request', 'too_large']]),
        ),
        ...deep.map((levels) => ['join', `{"room_id":"home"},${arrays(levels)}`, anyAnswer]),
        ...deep.map((levels) => ['no_such_event', arrays(levels), ['unknown_event', 'too_large']]),
        ['join', '{"room_id":"home","since_seq":1e400}', 'bad_request'],
        ['join', '{"room_id":"home","since_seq":-1e400}', 'bad_request'],
        ['join', '{"room_id":"home","since_seq":123456789012345678901234567890}', 'bad_request'],
        ['message', message('"payload":1e400'), anyAnswer],
        ['message', message(`"payload":${'9'.repeat(10_000)}`), anyAnswer],
        ['message', message('"payload":"\\ud800"'), 'bad_request'],
        ['message', message('"payload":{"\\udfff":1}'), 'bad_request'],
        ['message', message('"other":"\\ud800"'), anyAnswer],
        ['message', message('"\\ud800":1'), anyAnswer],
        ['join', '{"room_id":"home"},"\\ud800"', anyAnswer],
        ['join', '{"room_id":"\\ud83d\\ude00"}', 'ok'],
        ['join', '{"room_id":"home","room_id":"home"}', anyAnswer],
        ['join', '{"room_id":"\\u0000"}', 'bad_request'],
        ['join', '{"__proto__":{"room_id":"home"}}', 'bad_request'],
        ['join', '  {"room_id" :\t"home"\n}  ', 'ok'],
        ['authenticate', '{"user_id":"raw","token":5}', anyAnswer],
        [long(5_000), '{}', ['unknown_event', 'too_large']],
        ['', '{}', 'unknown_event'],
    ];
    const failures = [];
    const check = (event, json, expected, answer) => {
        const right = answer.ok
            ? [expected].flat().includes('ok')
            : [expected].flat().includes(answer.code);
        if (!right) {
            failures.push(
                `${event.slice(0, 40)} ${json?.slice(0, 80)} (${json?.length}) → ${JSON.stringify(answer).slice(0, 200)}, expected ${expected}`,
            );
        }
    };
    for (const [event, json, expected] of cases) {
        check(event, json, expected, await raw.ack(JSON.stringify(event), json));
        check('history', '', 'ok', await raw.ack('"history"', '{"room_id":"home","limit":1}'));
    }

    // Binary packets with a placeholder in every place.
    const placeholder = '{"_placeholder":true,"num":0}';
    const bytes = Buffer.from([0, 1, 2, 255]);
    for (const [event, json, expected] of [
        ['message', placeholder, 'bad_request'],
        ['message', `{"room_id":${placeholder},"content":"x"}`, 'bad_request'],
        ['message', `{"room_id":"home","content":${placeholder}}`, 'bad_request'],
        ['message', message(`"payload":${placeholder}`), 'bad_request'],
        ['message', message(`"payload":{"a":[${placeholder}]}`), 'bad_request'],
        ['message', message(`"attachment_urls":[${placeholder}]`), 'bad_request'],
        ['message', message(`"other":${placeholder}`), ['ok', 'bad_request']],
        ['no_such_event', placeholder, 'unknown_event'],
    ]) {
        check(event, json, expected, await raw.ack(JSON.stringify(event), json, [bytes]));
        check('history', '', 'ok', await raw.ack('"history"', '{"room_id":"home","limit":1}'));
    }
    assert.deepEqual(failures, []);
});

scenario(
    'packets that break the protocol may close their own connection, and affect no other',
    async (lab) => {
        const node = await lab.node(UNLIMITED);
        const witness = await lab.member(node, 'witness', room_id);
        const breaking = [
            '',
            '4',
            '42',
            '42{}',
            '42[]',
            '42[5]',
            '42[null]',
            '42[["join"]]',
            '42["join\\u0000",{}]',
            '42["join"',
            '42["join",',
            '421["join",{"room_id":}]',
            '42"join"',
            '4299999999999999999999["join"]',
            '9',
            'hello',
            '5',
            '6',
            '2probe',
            '3probe',
            '40',
            '40{"a":',
            '40/admin,',
            '42/admin,["join",{}]',
            '41',
            '43',
            '431[]',
            '4399999["x"]',
            '44{"message":"x"}',
            '45',
            '46',
            '451-',
            '451-["join",{"_placeholder":true,"num":0}]',
            '451-["join",{"_placeholder":true,"num":7}]',
            '4599999999999-["join"]',
            '45-1-["join"]',
            '452-["x"]',
            '42["\\ud800",{}]',
            '42["join",{"room_id":"home\\"}]',
            `42["join",${'['.repeat(100_000)}`,
            `42["join","${long(2_000_000)}"]`,
            long(3_000_000),
            '\u0000',
            '😀',
            Buffer.from([1, 2, 3]),
            Buffer.alloc(2_000_000),
            Buffer.from([0xff]),
        ];
        for (const packet of breaking) {
            const shown = String(packet).slice(0, 60);
            const raw = await lab.raw(node).connected();
            const closed = raw.seen.waitFor(
                ({ event }) => event === 'close',
                DEADLINE_MS,
                `a close or an answer after ${shown}`,
            );
            closed.catch(() => {});
            raw.ws.send(packet);
            if (raw.ws.readyState === 1) raw.ws.send('427["history",{"room_id":"home"}]');
            await Promise.race([
                closed,
                raw.seen.waitFor(
                    ({ event, data }) => event === 'ack:7' && data.ok === false,
                    DEADLINE_MS,
                    `an answer after ${shown}`,
                ),
            ]);
            raw.close();
            await witness.send(room_id, `after ${shown}`);
        }
        // The sender's own message may arrive after its ack.
        await witness.send(room_id, 'the last');
        await witness.receives(room_id, 'the last');
        assert.equal(witness.received(room_id).length, breaking.length + 1);
        assert.equal(witness.seen.of('disconnect').length, 0);
    },
);

scenario(
    'HTTP requests that break the protocol get 400 or 405, and open no session',
    async (lab) => {
        const node = await lab.node(UNLIMITED);
        for (const [method, query, raw] of [
            ['GET', ''],
            ['GET', '?EIO=4'],
            ['GET', '?EIO=5&transport=polling'],
            ['GET', '?EIO=2&transport=polling'],
            ['GET', '?EIO=x&transport=polling'],
            ['GET', '?EIO=4&transport=carrier-pigeon'],
            ['GET', '?EIO=4&transport=websocket'],
            ['GET', '?EIO=4&transport=polling&sid=unknown'],
            ['POST', '?EIO=4&transport=polling&sid=unknown', '40'],
            ['POST', '?EIO=4&transport=polling', '40'],
            ['PUT', '?EIO=4&transport=polling', '40'],
            ['GET', `?EIO=4&transport=polling&sid=${long(2_000)}`],
            ['GET', '?EIO=4&transport=polling&sid=%00%ff'],
        ]) {
            const { status } = await node.rest(method, `/socket.io/${query}`, { raw });
            assert.ok([400, 405].includes(status), `${method} ${query.slice(0, 80)} → ${status}`);
        }
        assert.equal((await node.get('/health')).body.connectedClients, 0);
    },
);

const NAMES = [
    '__proto__',
    'constructor',
    'toString',
    '*',
    '{a}b',
    'a:b:c',
    'a b',
    '../../etc',
    '%00%2F',
    'κόσμε',
    '😀',
    'a\u2028b',
    '\u202eabc',
    'é',
    'e\u0301',
    '"quoted"',
    "'; DROP TABLE",
    '\\',
    '[object Object]',
    'null',
    '0',
    '-1',
    '<script>',
    'x'.repeat(128),
    '?a=b&c#d',
    '\ufeffbom',
    '\u200b',
];

onEachBackplane(
    'unusual but valid names work like any other',
    { env: UNLIMITED },
    async (lab, [near, far]) => {
        const [one, two] = [await lab.user(near, 'one'), await lab.user(far, 'two')];
        for (const name of NAMES) {
            const member = await lab.user(near, name, { username: name });
            await two.join(name);
            await member.join(name);
            assert.deepEqual(
                await two.seen.next(
                    'user_joined',
                    (data) => data.room_id === name && data.user_id === name,
                ),
                { room_id: name, user_id: name, username: name },
            );
            await member.send(name, name, {
                title: name,
                type: name.slice(0, 20),
                client_msg_id: name.slice(0, 20),
                payload: { [name]: name, ok: 1 },
            });
            const message = await two.receives(name, name);
            assert.deepEqual(
                [
                    message.room_id,
                    message.user_id,
                    message.username,
                    message.title,
                    message.payload[name],
                ],
                [name, name, name, name, name],
            );
            assert.equal(
                (await one.request('subscribe_status', { target_user_id: name })).is_online,
                true,
            );
            assert.equal(
                (await one.seen.next('user_online', (user) => user.user_id === name)).username,
                name,
            );
            const users = await far.get(`/rooms/${encodeURIComponent(name)}/users`);
            assert.equal(users.body.total, 2, name);
            assert.equal(
                (await far.get(`/users/${encodeURIComponent(name)}/status`)).body.username,
                name,
            );
            member.close();
        }
        assert.equal(
            two.seen.of('message').length,
            NAMES.length,
            'no two names denote the same room',
        );
    },
);

scenario('clients that send endless garbage do not slow other clients down', async (lab) => {
    const node = await lab.node(UNLIMITED);
    const witness = await lab.member(node, 'witness', room_id);
    const hostile = await Promise.all(
        Array.from({ length: 5 }, () => new RawClient(node.url).connected()),
    );
    lab.clients.push(...hostile);
    for (let turn = 0; turn < 20; turn++) {
        for (const raw of hostile) {
            for (let index = 0; index < 20; index++) {
                raw.ws.send(`42${index}["join",${'['.repeat(1_000)}${']'.repeat(1_000)}]`);
            }
        }
        const start = Date.now();
        await witness.send(room_id, `${turn}`);
        assert.ok(Date.now() - start < 2_000, `round ${turn} took ${Date.now() - start} ms`);
    }
});
