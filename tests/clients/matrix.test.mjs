// Proves that every JavaScript client, over every transport, on both backplanes, gets the whole chat: identity, rooms, order, presence, history, resume.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertNoHole, BACKPLANES, Lab, nodesOn, TRANSPORTS, VERSIONS } from './harness.mjs';

for (const backplane of BACKPLANES) {
    describe(`on the ${backplane} backplane`, { concurrency: 3, timeout: 120_000 }, () => {
        const lab = new Lab();
        let near, far;
        before(async () => {
            [near, far] = await nodesOn(lab, backplane, 2);
        });
        after(() => lab.close());

        for (const version of VERSIONS) {
            for (const [name, transports] of Object.entries(TRANSPORTS)) {
                // Users and rooms of their own, so that no test sees another's.
                const tag = `${version}-${name}`;
                const label = `client ${version}, ${name}, ${backplane}`;

                test(`${label}: chat, presence, typing, history`, async () =>
                    chat(lab, near, far, tag, { version, transports }));
                test(`${label}: resumes without hole or repeat after the transport dropped`, async () =>
                    resume(lab, near, far, tag, { version, transports }));
            }
        }
    });
}

async function chat(lab, near, far, tag, kind) {
    const room_id = `chat ${tag}`,
        ada = `ada ${tag}`,
        bob = `bob ${tag}`;
    const a = await lab.user(near, ada, { ...kind, username: 'Ada' });
    const b = await lab.user(far, bob, { ...kind, username: 'Bob' });
    if (kind.transports.length === 2) await Promise.all([a.upgraded(), b.upgraded()]);
    else assert.equal(a.transport, kind.transports[0]);

    // Rooms and presence.
    const first = await a.join(room_id);
    const { ok, epoch, ...rest } = first;
    assert.deepEqual(rest, {
        room_id,
        total: 1,
        seq: 0,
        recovered: false,
        gap: false,
        replayed: 0,
    });
    assert.ok(ok && typeof epoch === 'string' && epoch.length > 0);
    assert.deepEqual(await a.seen.next('room_users'), { room_id, users: [ada], total: 1 });
    assert.equal((await b.join(room_id)).total, 2);
    const users = await b.seen.next('room_users');
    assert.deepEqual(
        { ...users, users: users.users.toSorted() },
        { room_id, users: [ada, bob], total: 2 },
    );
    assert.deepEqual(await a.seen.next('user_joined'), { room_id, user_id: bob, username: 'Bob' });

    // The same messages in the same order for both, whoever sends.
    const acks = await Promise.all(
        [a, b, a, b, a, b].map((sender, index) => sender.say(room_id, `text ${index}`)),
    );
    const own = await a.say(room_id, 'last', {
        type: 'card',
        title: 'A title',
        payload: { deep: [1, { two: null }] },
        attachment_urls: ['https://example.com/a.png'],
        client_msg_id: 'm1',
    });
    for (const client of [a, b]) {
        await client.hears(room_id, 'last');
        assert.equal(client.heard(room_id).length, 7);
        assertNoHole(client.heard(room_id), 1);
    }
    assert.deepEqual(a.heard(room_id), b.heard(room_id));
    assert.deepEqual(new Set(acks.map((ack) => ack.seq)), new Set([1, 2, 3, 4, 5, 6]));
    const last = b.heard(room_id).at(-1);
    assert.deepEqual(last, {
        id: own.id,
        room_id,
        seq: 7,
        epoch,
        user_id: ada,
        username: 'Ada',
        content: 'last',
        type: 'card',
        title: 'A title',
        payload: { deep: [1, { two: null }] },
        attachment_urls: ['https://example.com/a.png'],
        client_msg_id: 'm1',
        timestamp: own.timestamp,
    });
    assert.match(last.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.match(last.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

    // Typing: to the others only.
    assert.equal((await a.ask('typing', { room_id })).room_id, room_id);
    assert.deepEqual(await b.seen.next('user_typing'), {
        room_id,
        user_id: ada,
        username: 'Ada',
        is_typing: true,
    });
    await a.ask('typing', { room_id, is_typing: false });
    assert.deepEqual(await b.seen.next('user_typing', (typing) => !typing.is_typing), {
        room_id,
        user_id: ada,
        username: 'Ada',
        is_typing: false,
    });

    // History.
    const newest = await b.ask('history', { room_id, limit: 2 });
    assert.deepEqual(newest.messages, b.heard(room_id).slice(-2));
    assert.deepEqual([newest.has_more, newest.seq, newest.epoch], [true, 7, epoch]);
    const earliest = await b.ask('history', { room_id, after_seq: 0, limit: 3 });
    assert.deepEqual(
        [earliest.messages.map((message) => message.seq), earliest.has_more],
        [[1, 2, 3], true],
    );
    const earlier = await b.ask('history', { room_id, before_seq: 3 });
    assert.deepEqual(
        [earlier.messages.map((message) => message.seq), earlier.has_more],
        [[1, 2], false],
    );

    // Status: the state now, then every change.
    const status = await a.ask('subscribe_status', { target_user_id: bob });
    assert.deepEqual([status.user_id, status.username, status.is_online], [bob, 'Bob', true]);
    const initial = await a.seen.next('user_online', (user) => user.user_id === bob);
    assert.deepEqual(initial, {
        type: 'user_online',
        user_id: bob,
        username: 'Bob',
        is_online: true,
        last_seen: initial.last_seen,
        version: status.version,
        initial: true,
    });
    assert.deepEqual(await a.ask('subscribe_status', { target_user_id: `nobody ${tag}` }), {
        ok: true,
        user_id: `nobody ${tag}`,
        is_online: false,
        version: 0,
    });
    assert.deepEqual(
        await a.seen.next('user_offline', (user) => user.user_id === `nobody ${tag}`),
        {
            type: 'user_offline',
            user_id: `nobody ${tag}`,
            is_online: false,
            version: 0,
            initial: true,
        },
    );

    // Leaving: at once, and what is said then doesn't arrive.
    assert.equal((await b.ask('leave', { room_id })).room_id, room_id);
    assert.deepEqual(await a.seen.next('user_left'), { room_id, user_id: bob, username: 'Bob' });
    await b.refused('not_in_room', 'message', { room_id, content: 'from outside' });
    await a.say(room_id, 'unheard');
    await a.hears(room_id, 'unheard');
    await b.join(room_id, { limit: 1 });
    await b.hears(room_id, 'unheard');
    assert.equal(
        b.heard(room_id).filter((message) => message.content === 'unheard').length,
        1,
        'only the replay brought it',
    );

    // Going: offline for the watcher, then, unsubscribed, not any more.
    const mark = a.seen.mark();
    b.close();
    const offline = await a.seen.next('user_offline', (user) => user.user_id === bob);
    assert.ok(!offline.initial && offline.version > initial.version && offline.is_online === false);
    await a.seen.next('user_left', undefined, undefined, mark);
    assert.equal((await a.ask('unsubscribe_status', { target_user_id: bob })).target_user_id, bob);
    const again = await lab.user(far, bob, kind);
    await again.join(room_id);
    await a.seen.next('user_joined', undefined, undefined, mark);
    assert.deepEqual(
        a.seen.of('user_online', (user) => user.user_id === bob, mark),
        [],
    );
    again.close();
    a.close();
}

async function resume(lab, near, far, tag, kind) {
    const room_id = `resume ${tag}`;
    const proxy = await lab.proxy(near);
    const sender = await lab.member(far, `sender ${tag}`, room_id);
    const client = await lab.member(proxy, `resumer ${tag}`, room_id, kind);
    const { epoch } = await client.ask('history', { room_id });
    if (kind.transports.length === 2) await client.upgraded();

    // What an application does: upon each connection, say who one is and what one has.
    client.socket.on('connect', () => {
        const since_seq = client.heard(room_id).at(-1)?.seq ?? 0;
        client.socket.emit('authenticate', { user_id: `resumer ${tag}` });
        client.socket.emit('join', { room_id, since_seq, epoch }, (answer) =>
            client.seen.push('resumed', answer),
        );
    });
    for (let index = 0; index < 5; index++) await sender.say(room_id, `before ${index}`);
    await client.hears(room_id, 'before 4');

    proxy.cut();
    await client.seen.next('disconnect');
    for (let index = 0; index < 20; index++) await sender.say(room_id, `during ${index}`);
    proxy.heal();
    for (let index = 0; index < 20; index++) await sender.say(room_id, `after ${index}`);

    const answer = await client.seen.next('resumed');
    assert.deepEqual(
        [answer.ok, answer.recovered, answer.gap, answer.epoch],
        [true, true, false, epoch],
        JSON.stringify(answer),
    );
    // The sender, too: its own message may come after the acknowledgement, and after others have it.
    await Promise.all([client, sender].map((member) => member.hears(room_id, 'after 19')));
    assert.equal(client.heard(room_id).length, 45);
    assertNoHole(client.heard(room_id), 1);
    assert.deepEqual(client.heard(room_id), sender.heard(room_id));
    client.close();
    sender.close();
}
