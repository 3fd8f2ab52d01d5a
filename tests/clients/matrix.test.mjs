// The whole chat for every JavaScript client, over every transport, on both backplanes: identity, rooms,
// order, presence, history, resume, and messages that change.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertNoHole, BACKPLANES, Lab, nodesOn, TRANSPORTS, VERSIONS } from './harness.mjs';
import { changes, resumeOverChanges } from './harness/changes.mjs';

for (const backplane of BACKPLANES) {
    describe(`on the ${backplane} backplane`, { concurrency: 3, timeout: 120_000 }, () => {
        const lab = new Lab();
        let near;
        let far;
        before(async () => {
            [near, far] = await nodesOn(lab, backplane, 2);
        });
        after(() => lab.close());

        for (const version of VERSIONS) {
            for (const [name, transports] of Object.entries(TRANSPORTS)) {
                // Each test has its own users and rooms, so that the tests don't affect each other.
                const tag = `${version}-${name}`;
                const label = `client ${version}, ${name}, ${backplane}`;

                test(`${label}: chat, presence, typing, history`, async () =>
                    chat(lab, near, far, tag, { version, transports }));
                test(`${label}: resumes without a hole or a repeat after the transport was cut`, async () =>
                    resume(lab, near, far, tag, { version, transports }));
                // The nodes on Redis have no database here.
                if (backplane !== 'embedded') continue;
                test(`${label}: edits, deletes, reacts, pins, reads, replies, syncs`, async () =>
                    changes(lab, near, tag, { version, transports }));
                test(`${label}: resumes over changes`, async () =>
                    resumeOverChanges(lab, near, tag, { version, transports }));
            }
        }
    });
}

async function chat(lab, near, far, tag, kind) {
    const room_id = `chat ${tag}`;
    const ada = `ada ${tag}`;
    const bob = `bob ${tag}`;
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

    // Both receive the same messages in the same order, independent of the sender.
    const acks = await Promise.all(
        [a, b, a, b, a, b].map((sender, index) => sender.send(room_id, `text ${index}`)),
    );
    const own = await a.send(room_id, 'last', {
        type: 'card',
        title: 'A title',
        payload: { deep: [1, { two: null }] },
        attachment_urls: ['https://example.com/a.png'],
        client_msg_id: 'm1',
    });
    for (const client of [a, b]) {
        await client.receives(room_id, 'last');
        assert.equal(client.received(room_id).length, 7);
        assertNoHole(client.received(room_id), 1);
    }
    assert.deepEqual(a.received(room_id), b.received(room_id));
    assert.deepEqual(new Set(acks.map((ack) => ack.seq)), new Set([1, 2, 3, 4, 5, 6]));
    const last = b.received(room_id).at(-1);
    assert.deepEqual(last, {
        id: own.id,
        room_id,
        seq: 7,
        version: 7,
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

    // Typing: only the other members are notified.
    assert.equal((await a.request('typing', { room_id })).room_id, room_id);
    assert.deepEqual(await b.seen.next('user_typing'), {
        room_id,
        user_id: ada,
        username: 'Ada',
        is_typing: true,
    });
    await a.request('typing', { room_id, is_typing: false });
    assert.deepEqual(await b.seen.next('user_typing', (typing) => !typing.is_typing), {
        room_id,
        user_id: ada,
        username: 'Ada',
        is_typing: false,
    });

    // History.
    const newest = await b.request('history', { room_id, limit: 2 });
    assert.deepEqual(newest.messages, b.received(room_id).slice(-2));
    assert.deepEqual([newest.has_more, newest.seq, newest.epoch], [true, 7, epoch]);
    const earliest = await b.request('history', { room_id, after_seq: 0, limit: 3 });
    assert.deepEqual(
        [earliest.messages.map((message) => message.seq), earliest.has_more],
        [[1, 2, 3], true],
    );
    const earlier = await b.request('history', { room_id, before_seq: 3 });
    assert.deepEqual(
        [earlier.messages.map((message) => message.seq), earlier.has_more],
        [[1, 2], false],
    );

    // Status: the current state, then every change.
    const status = await a.request('subscribe_status', { target_user_id: bob });
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
    assert.deepEqual(await a.request('subscribe_status', { target_user_id: `nobody ${tag}` }), {
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

    // Leaving takes effect at once: later messages don't arrive.
    assert.equal((await b.request('leave', { room_id })).room_id, room_id);
    assert.deepEqual(await a.seen.next('user_left'), { room_id, user_id: bob, username: 'Bob' });
    await b.expectRefusal('not_in_room', 'message', { room_id, content: 'from outside' });
    await a.send(room_id, 'while away');
    await a.receives(room_id, 'while away');
    await b.join(room_id, { limit: 1 });
    await b.receives(room_id, 'while away');
    assert.equal(
        b.received(room_id).filter((message) => message.content === 'while away').length,
        1,
        'only the replay delivered it',
    );

    // Disconnecting: the watcher gets user_offline, and after unsubscribe_status no further status.
    const mark = a.seen.mark();
    b.close();
    const offline = await a.seen.next('user_offline', (user) => user.user_id === bob);
    assert.ok(!offline.initial && offline.version > initial.version && offline.is_online === false);
    await a.seen.next('user_left', undefined, undefined, mark);
    assert.equal(
        (await a.request('unsubscribe_status', { target_user_id: bob })).target_user_id,
        bob,
    );
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
    const { epoch } = await client.request('history', { room_id });
    if (kind.transports.length === 2) await client.upgraded();

    client.resumeOnReconnect(`resumer ${tag}`, room_id, epoch);
    for (let index = 0; index < 5; index++) await sender.send(room_id, `before ${index}`);
    await client.receives(room_id, 'before 4');

    proxy.cut();
    await client.seen.next('disconnect');
    for (let index = 0; index < 20; index++) await sender.send(room_id, `during ${index}`);
    proxy.heal();
    for (let index = 0; index < 20; index++) await sender.send(room_id, `after ${index}`);

    const answer = await client.seen.next('resumed');
    assert.deepEqual(
        [answer.ok, answer.recovered, answer.gap, answer.epoch],
        [true, true, false, epoch],
        JSON.stringify(answer),
    );
    // Wait for the sender too: its own message may arrive after the acknowledgement, and after other
    // members have received it.
    await Promise.all([client, sender].map((member) => member.receives(room_id, 'after 19')));
    assert.equal(client.received(room_id).length, 45);
    assertNoHole(client.received(room_id), 1);
    assert.deepEqual(client.received(room_id), sender.received(room_id));
    client.close();
    sender.close();
}
