// The fold of the example page: replays from any point, and histories of any age, end in the same messages.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import vm from 'node:vm';

const source = readFileSync(new URL('../../docs/examples/fold.js', import.meta.url), 'utf8');
const fold = vm.runInNewContext(`${source}; fold`);

/** Numbers from 0 to below `limit`, the same for the same seed. */
function randomNumbers(seed) {
    let state = seed;
    return (limit) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * limit);
    };
}

/** A room's events as they were published: `[name, event]`. */
function randomEvents(next) {
    const events = [];
    const live = [];
    for (let seq = 1; seq <= 60; seq++) {
        const target = live[next(live.length)];
        const timestamp = `time ${seq}`;
        const pointer = target && { id: target.id, target_seq: target.seq, seq, timestamp };
        const kind = target ? next(6) : 0;
        if (kind <= 1) {
            const message = { id: `m${seq}`, seq, version: seq, timestamp, content: `text ${seq}` };
            message.user_id = next(2) ? 'ann' : 'bob';
            if (target && next(3) === 0) message.thread_id = target.id;
            live.push(message);
            events.push(['message', message]);
        } else if (kind === 2) {
            const edited = { ...target, content: `edit ${seq}`, version: seq };
            live[live.indexOf(target)] = edited;
            events.push(['message_edited', { seq, message: edited }]);
        } else if (kind === 3) {
            const reactions = [{ emoji: '👍', count: seq, user_ids: [] }];
            events.push(['reactions_changed', { ...pointer, reactions }]);
        } else if (kind === 4) {
            events.push([next(2) ? 'message_pinned' : 'message_unpinned', pointer]);
        } else {
            live.splice(live.indexOf(target), 1);
            const { user_id, thread_id } = target;
            events.push(['message_deleted', { ...pointer, user_id, thread_id }]);
        }
    }
    return events;
}

const applied = (events) => {
    const room = fold.room();
    for (const [name, event] of events) fold.apply(room, name, event);
    const entries = JSON.parse(JSON.stringify(fold.sorted(room)));
    // A message of a history brings its state along; the entry has it.
    const state = ['reactions', 'reactions_seq', 'pinned', 'pinned_seq'];
    for (const { message } of entries) {
        if (message) state.forEach((key) => delete message[key]);
    }
    return entries;
};

test('replays from any point end in the same state', () => {
    for (let seed = 1; seed <= 200; seed++) {
        const next = randomNumbers(seed);
        const events = randomEvents(next);
        const replayed = [];
        for (let at = 0; at < events.length; ) {
            const end = Math.min(events.length, at + 1 + next(15));
            replayed.push(...events.slice(next(at + 1), end));
            at = end;
        }
        assert.deepEqual(applied(replayed), applied(events), `seed ${seed}`);
    }
});

/** What the server replays of these events: each shows its message in the newest form. */
function replay(events, first) {
    const newest = new Map();
    for (const [name, event] of events) {
        const { id } = event.message ?? event;
        if (name === 'message') newest.set(id, { message: event });
        if (name === 'message_edited') newest.get(id).message = event.message;
        if (name === 'message_deleted') newest.get(id).deletion = event;
    }
    return events.slice(first).map(([name, event]) => {
        const { message, deletion } = newest.get((event.message ?? event).id);
        const { seq } = event;
        // In the message's own place the event has the message's own time.
        const timestamp = event.timestamp ?? deletion?.timestamp;
        if (deletion) return ['message_deleted', { ...deletion, seq, timestamp }];
        if (name === 'message') return [name, message];
        if (name === 'message_edited') return [name, { seq, message }];
        return [name, event];
    });
}

test('replays that show the newest forms end in the same state', () => {
    for (let seed = 1; seed <= 200; seed++) {
        const next = randomNumbers(seed);
        const events = randomEvents(next);
        const received = [];
        for (let at = 0; at < events.length; ) {
            const end = Math.min(events.length, at + 1 + next(15));
            received.push(...replay(events.slice(0, end), next(at + 1)));
            at = end;
        }
        assert.deepEqual(applied(received), applied(events), `seed ${seed}`);
    }
});

/** The messages that a history shows after these events. */
function history(events) {
    return applied(events).map((entry) => {
        const { message, id, seq, deleted, reactions, reactionsSeq, pinned, pinSeq } = entry;
        if (deleted) {
            const { author: user_id, thread: thread_id, at: timestamp } = entry;
            return { id, seq, deleted, user_id, thread_id, timestamp };
        }
        const shown = { ...message };
        if (reactionsSeq) Object.assign(shown, { reactions, reactions_seq: reactionsSeq });
        if (pinSeq) Object.assign(shown, { pinned, pinned_seq: pinSeq });
        return shown;
    });
}

test('a history has the pins and reactions, also those that were removed', () => {
    const { room, apply } = fold;
    const shown = (...events) => {
        const one = room();
        events.forEach(([name, event]) => apply(one, name, event));
        const { pinned, reactions } = one.entries.get('a');
        return [pinned, reactions.length];
    };
    const message = { id: 'a', seq: 1, content: 'text' };
    const reactions = [{ emoji: '👍', count: 1, user_ids: [] }];
    const pinned = { ...message, pinned: true, pinned_seq: 5, reactions, reactions_seq: 6 };
    const unpinned = { ...message, pinned: false, pinned_seq: 7, reactions: [], reactions_seq: 8 };
    const pin = ['message_pinned', { id: 'a', target_seq: 1, seq: 5 }];
    const react = ['reactions_changed', { id: 'a', target_seq: 1, seq: 6, reactions }];
    assert.deepEqual(shown(['message', message]), [false, 0]);
    assert.deepEqual(shown(['message', message], ['message', pinned]), [true, 1]);
    for (const events of [[pin, react, ['message', unpinned]], [['message', unpinned], pin, react]]) {
        assert.deepEqual(shown(...events), [false, 0]);
    }
});

test('a history, and the events since an earlier number, end in the same state', () => {
    for (let seed = 1; seed <= 200; seed++) {
        const next = randomNumbers(seed);
        const events = randomEvents(next);
        const asOf = next(events.length);
        const page = history(events.slice(0, asOf)).map((message) => ['message', message]);
        const later = events.slice(next(asOf + 1));
        assert.deepEqual(applied([...page, ...later]), applied(events), `seed ${seed}`);
    }
});

test('events in any order end in the same state', () => {
    for (let seed = 1; seed <= 200; seed++) {
        const next = randomNumbers(seed);
        const events = randomEvents(next);
        const shuffled = [...events];
        for (let last = shuffled.length - 1; last > 0; last--) {
            const other = next(last + 1);
            [shuffled[last], shuffled[other]] = [shuffled[other], shuffled[last]];
        }
        assert.deepEqual(applied(shuffled), applied(events), `seed ${seed}`);
    }
});

test('a deleted message stays without content, and is no reply any more', () => {
    const room = fold.room();
    fold.apply(room, 'message', { id: 'a', seq: 1, content: 'root' });
    fold.apply(room, 'message', { id: 'b', seq: 2, content: 'reply', thread_id: 'a' });
    assert.equal(fold.replies(room, 'a').length, 1);
    fold.apply(room, 'message_deleted', { id: 'b', target_seq: 2, seq: 3 });
    fold.apply(room, 'message_edited', { seq: 4, message: { id: 'b', seq: 2, version: 4, content: 'late' } });
    assert.equal(fold.replies(room, 'a').length, 0);
    assert.equal(room.entries.get('b').message, null);
});

test('the tombstone of a message that nobody received has its author and its time', () => {
    const room = fold.room();
    const deletion = { id: 'a', target_seq: 1, user_id: 'ann', thread_id: 'root' };
    fold.apply(room, 'message_deleted', { ...deletion, seq: 1, timestamp: 'sent' });
    fold.apply(room, 'message_deleted', { ...deletion, seq: 2, timestamp: 'deleted' });
    const { deleted, author, thread, at } = room.entries.get('a');
    assert.deepEqual([deleted, author, thread, at], [true, 'ann', 'root', 'sent']);
});
