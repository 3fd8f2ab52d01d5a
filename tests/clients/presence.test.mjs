// Presence: one event per change, across reloads, tabs, lost connections and nodes, and totals instead of
// single events in rooms over ROOM_EVENTS_LIMIT.

import assert from 'node:assert/strict';
import {
    BACKPLANES,
    DEADLINE_MS,
    eventually,
    nodesOn,
    onEachBackplane,
    pause,
    scenario,
} from './harness.mjs';

const room_id = 'room';

/** The presence events of one user that a watcher received after a mark: `['user_left', …]`. */
function presenceEvents(watcher, user_id, from = 0) {
    const events = ['user_joined', 'user_left', 'user_online', 'user_offline'];
    return watcher.seen.entries
        .slice(from)
        .filter(
            ({ event, data }) =>
                events.includes(event) && data.user_id === user_id && !data.initial,
        )
        .map(({ event }) => event);
}

async function watcherOf(lab, node, ...users) {
    const watcher = await lab.member(node, 'watcher', room_id);
    for (const target_user_id of users) {
        await watcher.request('subscribe_status', { target_user_id });
    }
    return watcher;
}

const total = async (node) => (await node.get(`/rooms/${room_id}/users`)).body.total;

onEachBackplane(
    'a page reload within the grace causes no presence events',
    { env: { PRESENCE_GRACE_MS: 1_500 } },
    async (lab, [near, far]) => {
        const watcher = await watcherOf(lab, far, 'ada', 'sentinel');
        const page = await lab.member(near, 'ada', room_id);
        await watcher.seen.next('user_joined', (data) => data.user_id === 'ada');
        const sentinel = await lab.member(near, 'sentinel', room_id);
        await watcher.seen.next('user_joined', (data) => data.user_id === 'sentinel');

        const mark = watcher.seen.mark();
        page.close();
        await eventually(
            async () =>
                (await near.get('/health')).body.connectedClients === (near === far ? 2 : 1),
            DEADLINE_MS,
            'the page is disconnected',
        );
        assert.equal(await total(far), 3, 'a user in its grace counts');
        const { body: status } = await far.get('/users/ada/status');
        assert.equal(status.is_online, true);
        // The page reconnects through the other node.
        const reloaded = await lab.user(far, 'ada');
        const ack = await reloaded.join(room_id);
        assert.equal(ack.total, 3);
        // The sentinel disconnects after the reload, so its grace ends later than that of the page would
        // have ended.
        sentinel.close();
        await watcher.seen.next(
            'user_offline',
            (data) => data.user_id === 'sentinel',
            DEADLINE_MS,
            mark,
        );
        await watcher.seen.next(
            'user_left',
            (data) => data.user_id === 'sentinel',
            DEADLINE_MS,
            mark,
        );
        assert.deepEqual(presenceEvents(watcher, 'ada', mark), []);
        assert.equal((await far.get('/users/ada/status')).body.version, status.version);
        assert.equal(await total(near), 2);
        await reloaded.send(room_id, 'still a member');
        await watcher.receives(room_id, 'still a member');
    },
);

onEachBackplane(
    'a user who reconnects without rejoining leaves the room at the end of the grace and stays online',
    { env: { PRESENCE_GRACE_MS: 1_000 } },
    async (lab, [near, far]) => {
        const watcher = await watcherOf(lab, far, 'ada', 'sentinel');
        const page = await lab.member(near, 'ada', room_id, { username: 'Ada' });
        const sentinel = await lab.member(near, 'sentinel', room_id);
        await watcher.seen.next('user_joined', (data) => data.user_id === 'sentinel');
        const mark = watcher.seen.mark();
        const start = Date.now();
        page.close();
        const back = await lab.user(near, 'ada', { username: 'Ada' });
        assert.deepEqual(await watcher.seen.next('user_left', undefined, DEADLINE_MS, mark), {
            room_id,
            user_id: 'ada',
            username: 'Ada',
        });
        assert.ok(Date.now() - start >= 900, 'not before the end of the grace');
        await back.expectRefusal('not_in_room', 'message', { room_id, content: 'x' });
        sentinel.close();
        await watcher.seen.next(
            'user_offline',
            (data) => data.user_id === 'sentinel',
            DEADLINE_MS,
            mark,
        );
        assert.deepEqual(presenceEvents(watcher, 'ada', mark), ['user_left']);
        assert.equal((await near.get('/users/ada/status')).body.is_online, true);
    },
);

for (const cause of ['the transport is cut', 'the client sends DISCONNECT']) {
    onEachBackplane(
        `a lost connection (${cause}) causes one event, after the grace`,
        { env: { PRESENCE_GRACE_MS: 700 } },
        async (lab, [near, far]) => {
            const watcher = await watcherOf(lab, far, 'ada', 'sentinel');
            const proxy = await lab.proxy(near);
            const ada = await lab.member(proxy, 'ada', room_id, {
                username: 'Ada',
                reconnection: false,
            });
            const online = await watcher.seen.next(
                'user_online',
                (data) => data.user_id === 'ada' && !data.initial,
            );
            const start = Date.now();
            if (cause === 'the transport is cut') proxy.cut();
            else ada.socket.disconnect();
            const offline = await watcher.seen.next(
                'user_offline',
                (data) => data.user_id === 'ada' && !data.initial,
            );
            assert.ok(Date.now() - start >= 600, 'not before the end of the grace');
            await watcher.seen.next('user_left', (data) => data.user_id === 'ada');
            assert.deepEqual(offline, {
                type: 'user_offline',
                user_id: 'ada',
                username: 'Ada',
                is_online: false,
                last_seen: offline.last_seen,
                version: offline.version,
            });
            assert.ok(offline.version > online.version);
            assert.ok(Math.abs(Date.parse(offline.last_seen) - Date.now()) < 10_000);
            // A later watcher gets the same state as its initial one.
            const later = await lab.user(near, 'later');
            const { ok: _, ...answer } = await later.request('subscribe_status', {
                target_user_id: 'ada',
            });
            assert.deepEqual(answer, {
                user_id: 'ada',
                username: 'Ada',
                is_online: false,
                last_seen: offline.last_seen,
                version: offline.version,
            });
            assert.deepEqual(await later.seen.next('user_offline'), { ...offline, initial: true });
            const sentinel = await lab.member(near, 'sentinel', room_id);
            sentinel.close();
            await watcher.seen.next(
                'user_offline',
                (data) => data.user_id === 'sentinel' && !data.initial,
            );
            assert.deepEqual(presenceEvents(watcher, 'ada').toSorted(), [
                'user_joined',
                'user_left',
                'user_offline',
                'user_online',
            ]);
        },
    );
}

onEachBackplane(
    'leave takes effect at once, without a grace',
    { env: { PRESENCE_GRACE_MS: 30_000 } },
    async (lab, [near, far]) => {
        const watcher = await watcherOf(lab, far, 'ada');
        const ada = await lab.member(near, 'ada', room_id);
        await ada.request('leave', { room_id });
        await watcher.seen.next('user_left', (data) => data.user_id === 'ada');
        assert.equal(await total(far), 1);
        await ada.expectRefusal('not_in_room', 'leave', { room_id });
        await ada.join(room_id);
        await eventually(
            () => presenceEvents(watcher, 'ada').length === 4,
            DEADLINE_MS,
            'joined again',
        );
        assert.deepEqual(
            presenceEvents(watcher, 'ada').filter((event) => event !== 'user_online'),
            ['user_joined', 'user_left', 'user_joined'],
        );
    },
);

onEachBackplane(
    'several tabs are one user',
    { env: { PRESENCE_GRACE_MS: 500 } },
    async (lab, [near, far]) => {
        const watcher = await watcherOf(lab, far, 'ada', 'sentinel');
        const one = await lab.member(near, 'ada', room_id);
        await watcher.seen.next('user_joined', (data) => data.user_id === 'ada');
        const two = await lab.member(far, 'ada', room_id);
        assert.deepEqual((await two.seen.next('room_users')).total, 2);
        const three = await lab.member(near, 'ada', room_id);
        // All connections receive the message, the sender's own tabs included.
        await one.send(room_id, 'hello');
        for (const each of [one, two, three, watcher]) await each.receives(room_id, 'hello');
        // A tab that leaves and a tab that is closed change nothing while a third one is in the room.
        await one.request('leave', { room_id });
        two.close();
        const sentinel = await lab.member(near, 'sentinel', room_id);
        sentinel.close();
        await watcher.seen.next(
            'user_offline',
            (data) => data.user_id === 'sentinel' && !data.initial,
        );
        assert.deepEqual(presenceEvents(watcher, 'ada').toSorted(), ['user_joined', 'user_online']);
        await watcher.send(room_id, 'to the third only');
        await three.receives(room_id, 'to the third only');
        await one.expectRefusal('not_in_room', 'history', { room_id });
        // The last tab in the room leaves it; the user stays online through the first tab.
        await three.request('leave', { room_id });
        await watcher.seen.next('user_left', (data) => data.user_id === 'ada');
        await Promise.all([one, three].map((tab) => tab.close()));
        await watcher.seen.next('user_offline', (data) => data.user_id === 'ada' && !data.initial);
        assert.deepEqual(presenceEvents(watcher, 'ada').toSorted(), [
            'user_joined',
            'user_left',
            'user_offline',
            'user_online',
        ]);
        for (const tab of [one, two, three]) {
            assert.deepEqual(presenceEvents(tab, 'ada'), [], 'a user gets no events about itself');
        }
        assert.deepEqual(
            one.received(room_id).map((message) => message.content),
            ['hello'],
        );
    },
);

onEachBackplane(
    'the latest name of a user applies, and is not a change of presence',
    {},
    async (lab, [near, far]) => {
        const watcher = await watcherOf(lab, far, 'ada');
        await lab.member(near, 'ada', room_id, { username: 'Ada' });
        await watcher.seen.next('user_joined');
        const { body: before } = await near.get('/users/ada/status');
        const second = await lab.user(far, 'ada', { username: 'Countess' });
        const { body: after } = await near.get('/users/ada/status');
        assert.deepEqual(
            [before.username, after.username, after.version],
            ['Ada', 'Countess', before.version],
        );
        await second.join(room_id);
        await second.send(room_id, 'sentinel');
        assert.equal((await watcher.receives(room_id, 'sentinel')).username, 'Countess');
        assert.deepEqual(presenceEvents(watcher, 'ada').toSorted(), ['user_joined', 'user_online']);
    },
);

onEachBackplane(
    'each watcher receives each change of a status once, with rising versions',
    { env: { PRESENCE_GRACE_MS: 100 } },
    async (lab, [near, far]) => {
        const watchers = [await watcherOf(lab, near, 'ada'), await lab.user(far, 'other')];
        await watchers[1].request('subscribe_status', { target_user_id: 'ada' });
        for (let turn = 1; turn <= 5; turn++) {
            const ada = await lab.user(turn % 2 ? near : far, 'ada');
            for (const watcher of watchers) {
                await eventually(
                    () => presenceEvents(watcher, 'ada').length === 2 * turn - 1,
                    DEADLINE_MS,
                    `online ${turn}`,
                );
            }
            ada.close();
            for (const watcher of watchers) {
                await eventually(
                    () => presenceEvents(watcher, 'ada').length === 2 * turn,
                    DEADLINE_MS,
                    `offline ${turn}`,
                );
            }
        }
        for (const watcher of watchers) {
            const changes = watcher.seen.entries
                .filter(({ event }) => /^user_o/.test(event))
                .map(({ data }) => data);
            assert.deepEqual(
                changes.map((change) => change.type),
                ['user_offline', ...Array(5).fill(['user_online', 'user_offline']).flat()],
            );
            changes
                .slice(1)
                .forEach((change, index) =>
                    assert.ok(change.version > changes[index].version, 'versions rise'),
                );
        }
    },
);

// The largest room that still sends an event for each member.
const LIMIT = 5;

for (const backplane of BACKPLANES) {
    scenario(
        `a room over ROOM_EVENTS_LIMIT sends totals only, and one full list when it is back at the limit [${backplane}]`,
        async (lab) => {
            const nodes = await nodesOn(lab, backplane, 2, {
                ROOM_EVENTS_LIMIT: LIMIT,
                PRESENCE_GRACE_MS: 500,
            });
            const members = [];
            const enter = async () => {
                members.push(
                    await lab.member(
                        nodes[members.length % 2],
                        `user ${members.length + 1}`,
                        room_id,
                    ),
                );
            };
            for (let count = 1; count <= LIMIT; count++) await enter();
            const [first, second] = members;
            for (const watcher of [first, second]) {
                await eventually(
                    () =>
                        watcher.seen.of('user_joined').length ===
                        LIMIT - members.indexOf(watcher) - 1,
                    DEADLINE_MS,
                    'each of the first members is announced',
                );
            }

            // Over the limit.
            const mark = [first, second].map((watcher) => watcher.seen.mark());
            for (let count = LIMIT + 1; count <= LIMIT + 4; count++) await enter();
            for (const [index, watcher] of [first, second].entries()) {
                assert.deepEqual(
                    await watcher.seen.next(
                        'room_users',
                        (users) => users.total === LIMIT + 4,
                        DEADLINE_MS,
                        mark[index],
                    ),
                    { room_id, users: [], total: LIMIT + 4 },
                );
            }
            await members[LIMIT + 3].request('leave', { room_id });
            members[LIMIT + 2].close();
            await first.seen.next(
                'room_users',
                (users) => users.total === LIMIT + 2,
                DEADLINE_MS,
                mark[0],
            );
            for (const [index, watcher] of [first, second].entries()) {
                const totals = watcher.seen.entries
                    .slice(mark[index])
                    .filter(({ event }) => event === 'room_users');
                assert.ok(
                    totals.every(({ data }) => data.users.length === 0),
                    'no lists',
                );
                totals
                    .slice(1)
                    .forEach((entry, turn) =>
                        assert.ok(
                            entry.at - totals[turn].at >= 900,
                            `at most once a second: ${entry.at - totals[turn].at} ms`,
                        ),
                    );
                assert.deepEqual(
                    watcher.seen
                        .of('user_joined', undefined, mark[index])
                        .concat(watcher.seen.of('user_left', undefined, mark[index])),
                    [],
                );
            }

            // Back at the limit.
            const back = [first, second].map((watcher) => watcher.seen.mark());
            await members[LIMIT].request('leave', { room_id });
            await members[LIMIT + 1].request('leave', { room_id });
            const expected = members.slice(0, LIMIT).map((_, index) => `user ${index + 1}`);
            for (const [index, watcher] of [first, second].entries()) {
                const full = await watcher.seen.next(
                    'room_users',
                    (users) => users.users.length > 0,
                    DEADLINE_MS,
                    back[index],
                );
                assert.deepEqual(
                    { ...full, users: full.users.toSorted() },
                    { room_id, users: expected, total: LIMIT },
                );
            }
            // Single events are sent again, and the full list was sent once.
            await members[LIMIT - 1].request('leave', { room_id });
            for (const [index, watcher] of [first, second].entries()) {
                await watcher.seen.next(
                    'user_left',
                    (data) => data.user_id === `user ${LIMIT}`,
                    DEADLINE_MS,
                    back[index],
                );
                assert.equal(
                    watcher.seen.of('room_users', (users) => users.users.length > 0, back[index])
                        .length,
                    1,
                );
            }
            await enter();
            await first.seen.next(
                'user_joined',
                (data) => data.user_id === `user ${members.length}`,
                DEADLINE_MS,
                back[0],
            );
        },
    );
}

onEachBackplane(
    'room_users of a room with more than 1,000 members lists 1,000 ids and the exact total',
    {
        env: { RATE_EVENTS_BURST: 5_000, RATE_EVENTS_PER_SEC: 5_000, MAX_SOCKETS_PER_USER: 5 },
        timeout: 90_000,
    },
    async (lab, nodes) => {
        const count = 1_010;
        const enter = async (index) => {
            const client = lab.client('4.8', nodes[index % 2], { timeout: 60_000 });
            client.socket.emit('authenticate', { user_id: `user ${index}` });
            const ack = await client.ackWithin(60_000, 'join', { room_id });
            assert.ok(ack.ok, JSON.stringify(ack));
            return client;
        };
        for (let start = 0; start < count; start += 101) {
            await Promise.all(Array.from({ length: 101 }, (_, index) => enter(start + index)));
            await pause(1);
        }
        const last = await lab.member(nodes[0], 'last', room_id);
        const users = await last.seen.next('room_users');
        assert.equal(users.total, count + 1);
        assert.equal(users.users.length, 1_000);
        assert.ok(users.users.includes('last'), 'the joiner is always included');
        const page = (await nodes[1].get(`/rooms/${room_id}/users?limit=1000`)).body;
        assert.deepEqual([page.users.length, page.total], [1_000, count + 1]);
        const rest = (
            await nodes[1].get(
                `/rooms/${room_id}/users?limit=1000&cursor=${encodeURIComponent(page.next_cursor)}`,
            )
        ).body;
        assert.equal(
            new Set([...page.users, ...rest.users].map((user) => user.user_id)).size,
            count + 1,
        );
    },
);
