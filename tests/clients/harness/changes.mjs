// Messages that change, for every JavaScript client: what each change is acknowledged with, what the others
// receive, and what a client that was away gets.

import assert from 'node:assert/strict';

const about = (id) => (event) => event.id === id || event.message?.id === id;

/** Two users change messages; a third one comes later, by `sync`. */
export async function changes(lab, node, tag, kind) {
    const room_id = `changes ${tag}`;
    const [ada, bob] = [`author ${tag}`, `reader ${tag}`];
    // Version 1 encodes its packets twice over polling, so that they can have only ASCII.
    const emoji = kind.version < '2' ? ':+1:' : '👍';
    const a = await lab.member(node, ada, room_id, kind);
    const b = await lab.member(node, bob, room_id, kind);
    const first = await a.send(room_id, 'first');
    const { id, epoch } = first;
    const here = { room_id, epoch, id, target_seq: first.seq };
    await b.receives(room_id, 'first');
    const received = async (client, name, where = about(id)) => {
        const { timestamp, ...event } = await client.seen.next(name, where);
        assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
        return event;
    };

    // A reply, which mentions the other user.
    const reply = await b.send(room_id, 'reply to @here', { thread_id: id });
    for (const client of [a, b]) {
        const { thread_id, mentions } = await client.receives(room_id, 'reply to @here');
        assert.deepEqual([thread_id, mentions], [id, [ada]]);
    }
    await a.expectRefusal('bad_request', 'message', { room_id, content: 'x', thread_id: reply.id });

    // An edit, and one that is based on an older version.
    const edited = await a.request('edit_message', { room_id, id, content: 'second', version: first.seq });
    assert.deepEqual(edited, { ok: true, room_id, id, seq: edited.seq, version: edited.seq });
    for (const client of [a, b]) {
        const { message, ...event } = await received(client, 'message_edited');
        assert.deepEqual(event, { room_id, epoch, seq: edited.seq });
        assert.deepEqual(
            [message.content, message.seq, message.version, message.user_id],
            ['second', first.seq, edited.version, ada],
        );
        assert.ok(message.edited_at);
    }
    const stale = { room_id, id, content: 'third', version: first.seq };
    const { message } = await a.expectRefusal('conflict', 'edit_message', stale);
    assert.deepEqual([message.content, message.version], ['second', edited.version]);
    await b.expectRefusal('forbidden', 'edit_message', { room_id, id, content: 'not mine' });
    await b.expectRefusal('forbidden', 'delete_message', { room_id, id });

    // Reactions: the announcement has all of them.
    for (const client of [a, b]) {
        const reacted = await client.request('react', { room_id, id, emoji });
        assert.deepEqual(reacted, { ok: true, room_id, id });
    }
    const both = (event) => event.id === id && event.reactions[0]?.count === 2;
    const reactions = await received(b, 'reactions_changed', both);
    assert.deepEqual(
        { ...reactions, seq: 0 },
        { ...here, seq: 0, reactions: [{ emoji, count: 2, user_ids: [ada, bob] }] },
    );
    await b.request('react', { room_id, id, emoji, on: false });
    const one = (event) => event.seq > reactions.seq && event.reactions[0]?.count === 1;
    await received(a, 'reactions_changed', one);

    // Pins.
    for (const name of ['pin', 'unpin', 'pin']) {
        const pinned = await b.request(`${name}_message`, { room_id, id });
        assert.deepEqual(pinned, { ok: true, room_id, id, seq: pinned.seq });
        const event = await received(a, `message_${name}ned`, ({ seq }) => seq === pinned.seq);
        assert.deepEqual(event, { ...here, seq: pinned.seq, user_id: bob });
    }

    // Positions: `read` never lowers one.
    const last = await a.send(room_id, 'last');
    const read = await b.request('read', { room_id, seq: first.seq });
    assert.deepEqual(read, { ok: true, room_id, last_read_seq: first.seq, unread: 1 });
    const all = await b.request('read', { room_id, seq: last.seq });
    assert.deepEqual([all.last_read_seq, all.unread], [last.seq, 0]);
    assert.equal((await b.request('read', { room_id, seq: 1 })).last_read_seq, last.seq);
    const receipt = await a.seen.next('read_receipt', (one) => one.last_read_seq === last.seq);
    assert.deepEqual(receipt, { room_id, user_id: bob, last_read_seq: last.seq });

    // A deletion: once more it succeeds, and every other change is refused.
    const secret = await a.send(room_id, 'a secret');
    const target = { room_id, id: secret.id };
    const deleted = await a.request('delete_message', target);
    assert.deepEqual(deleted, { ok: true, ...target, seq: deleted.seq });
    for (const client of [a, b]) {
        assert.deepEqual(await received(client, 'message_deleted', about(secret.id)), {
            ...target,
            epoch,
            seq: deleted.seq,
            target_seq: secret.seq,
            version: deleted.seq,
            user_id: ada,
            deleted_by: ada,
        });
    }
    assert.deepEqual(await a.request('delete_message', target), deleted);
    for (const event of ['edit_message', 'react', 'pin_message']) {
        await a.expectRefusal('message_deleted', event, { ...target, content: 'x', emoji: 'x' });
    }
    const page = await b.request('history', { room_id });
    const [newest, , , tombstone] = page.messages;
    assert.deepEqual(
        [newest.content, newest.version, newest.pinned, newest.reactions[0].count, newest.thread.replies],
        ['second', edited.version, true, 1, 1],
    );
    assert.deepEqual([tombstone.id, tombstone.deleted, tombstone.content], [secret.id, true, undefined]);

    // A client that comes later: every number once, each message in its newest form.
    const late = await lab.user(node, `late ${tag}`, kind);
    const rooms = { [room_id]: { since_seq: 0, epoch }, [`chat:${secret.id}`]: {} };
    const answer = await late.request('sync', { rooms });
    const { recovered, replayed, seq } = answer.rooms[room_id];
    assert.deepEqual([recovered, replayed, seq], [true, deleted.seq, deleted.seq]);
    assert.equal(answer.rooms[`chat:${secret.id}`].code, 'forbidden');
    await late.seen.next('message_deleted', (event) => event.seq === deleted.seq);
    const numbered = late.numbered(room_id);
    assert.deepEqual(
        numbered.map(({ data }) => data.seq),
        Array.from({ length: deleted.seq }, (_, index) => index + 1),
    );
    const { event, data } = numbered[first.seq - 1];
    assert.deepEqual([event, data.content, data.version], ['message', 'second', edited.version]);
    assert.equal(numbered[secret.seq - 1].event, 'message_deleted');
    assert.doesNotMatch(JSON.stringify(numbered), /a secret|"first"/);
    for (const client of [a, b, late]) client.close();
}

/** A client whose transport was cut resumes over an edit and a deletion. */
export async function resumeOverChanges(lab, node, tag, kind) {
    const room_id = `resume changes ${tag}`;
    const proxy = await lab.proxy(node);
    const sender = await lab.member(node, `sender ${tag}`, room_id);
    const client = await lab.member(proxy, `resumer ${tag}`, room_id, kind);
    const before = await sender.send(room_id, 'before');
    client.resumeOnReconnect(`resumer ${tag}`, room_id, before.epoch);
    await client.receives(room_id, 'before');
    proxy.cut();
    await client.seen.next('disconnect');
    const edit = ({ id }, content) => sender.request('edit_message', { room_id, id, content });
    const missed = await sender.send(room_id, 'missed');
    const short = await sender.send(room_id, 'short-lived');
    await edit(before, 'before, edited');
    await edit(missed, 'missed, edited');
    await sender.request('delete_message', { room_id, id: short.id });
    const newest = await edit(missed, 'missed, edited twice');
    const mark = client.seen.mark();
    proxy.heal();
    const answer = await client.seen.next('resumed');
    assert.deepEqual([answer.recovered, answer.gap, answer.replayed], [true, false, 6]);
    await client.seen.next('message_edited', (event) => event.seq === newest.seq);
    const shown = client.numbered(room_id, mark).map(({ event, data }) => {
        assert.notEqual(data.message?.content, 'missed, edited');
        return [event, data.seq, data.content ?? data.message?.content];
    });
    assert.deepEqual(shown, [
        ['message', missed.seq, 'missed, edited twice'],
        ['message_deleted', short.seq, undefined],
        ['message_edited', short.seq + 1, 'before, edited'],
        ['message_edited', short.seq + 2, 'missed, edited twice'],
        ['message_deleted', short.seq + 3, undefined],
        ['message_edited', newest.seq, 'missed, edited twice'],
    ]);
    client.close();
    sender.close();
}
