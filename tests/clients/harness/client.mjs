// Official Socket.IO clients of four major versions behind one interface.

import assert from 'node:assert/strict';
import ioV1 from 'socket.io-client-v1';
import ioV2 from 'socket.io-client-v2';
import { io as ioV3 } from 'socket.io-client-v3';
import { io as ioV4 } from 'socket.io-client-v4';
import { io as ioV40 } from 'socket.io-client-v40';
import { Recorder } from './recorder.mjs';
import { DEADLINE_MS, eventually } from './wait.mjs';

const LIBRARIES = { '1.7': ioV1, '2.5': ioV2, '3.1': ioV3, '4.0': ioV40, '4.8': ioV4 };
export const VERSIONS = Object.keys(LIBRARIES);

/** Whether the client sends data with its CONNECT: versions 1 and 2 (Engine.IO 3) cannot. */
export const hasAuth = (version) => version >= '3';

/** The options by which a client of this version sends a token in its handshake. */
export const inHandshake = (version, text) =>
    hasAuth(version) ? { auth: { token: text } } : { query: { token: text } };

export const TRANSPORTS = {
    polling: ['polling'],
    websocket: ['websocket'],
    upgrade: ['polling', 'websocket'],
};

/** The events of a room that have numbers. */
const NUMBERED = [
    'message',
    'message_edited',
    'message_deleted',
    'reactions_changed',
    'message_pinned',
    'message_unpinned',
];

const EVENTS = [
    'authenticated',
    ...NUMBERED,
    'read_receipt',
    'room_users',
    'user_joined',
    'user_left',
    'user_online',
    'user_offline',
    'user_typing',
    'room_reset',
    'going_away',
    'exception',
    'connect',
    'disconnect',
    'connect_error',
];

/** A Socket.IO client of any version, with the record of everything that it received in `seen`. */
export class Client {
    constructor(
        version,
        url,
        { auth, query, headers, transports = ['websocket'], ...options } = {},
    ) {
        this.version = version;
        this.seen = new Recorder(`client ${version}`);
        const common = {
            transports,
            query,
            extraHeaders: headers,
            forceNew: true,
            reconnectionDelay: 100,
            reconnectionDelayMax: 500,
            ...options,
        };
        if (hasAuth(version)) {
            common.auth = auth;
        } else if (headers) {
            // Version 2 reads them from here, version 1 from `extraHeaders`.
            common.transportOptions = {
                polling: { extraHeaders: headers },
                websocket: { extraHeaders: headers },
            };
        }
        this.socket = LIBRARIES[version](url, common);
        for (const event of EVENTS) {
            this.socket.on(event, (data) =>
                this.seen.push(event, data instanceof Error ? data.message : data),
            );
        }
        // The data that the server sends with its refusal.
        this.socket.on('connect_error', (error) => {
            if (error?.data !== undefined) this.seen.push('connect_error data', error.data);
        });
        // Versions 1 and 2 report the server's refusal as `error`; later ones don't use that name.
        if (!hasAuth(version)) {
            this.socket.on('error', (data) => this.seen.push('connect_error', data));
        }
    }

    async connected(ms = DEADLINE_MS) {
        if (!this.socket.connected) {
            await this.seen.next('connect', undefined, ms, this.seen.mark());
        }
        return this;
    }

    /** The name of the transport in use. */
    get transport() {
        return this.socket.io.engine?.transport?.name;
    }

    upgraded() {
        return eventually(
            () => this.transport === 'websocket',
            DEADLINE_MS,
            'the upgrade to WebSocket',
        );
    }

    /**
     * Emits `event` and returns its acknowledgement. The acknowledgement is recorded too, so that a
     * test can check its position among the events.
     */
    ack(event, ...payload) {
        return this.ackWithin(DEADLINE_MS, event, ...payload);
    }

    ackWithin(ms, event, ...payload) {
        const description = `ack of ${event} ${String(JSON.stringify(payload)).slice(0, 120)}`;
        return new Promise((resolve, reject) => {
            let settled = false;
            const settle = (how, value) => {
                if (settled) return;
                settled = true;
                how(value);
            };
            this.socket.emit(event, ...payload, (answer) => {
                this.seen.push(`ack:${event}`, answer);
                settle(resolve, answer);
            });
            const ended = (entry) => settled || entry.event === 'disconnect';
            this.seen.waitFor(ended, ms, description, this.seen.mark()).then(
                () => {
                    const text = `${description} (${this.seen.name}): the connection was closed instead`;
                    settle(reject, new Error(text));
                },
                (late) => settle(reject, late),
            );
        });
    }

    /** Emits `event` and returns its acknowledgement, which must be positive. */
    async request(event, payload) {
        const answer = await this.ack(event, payload);
        const shown = `${event} ${JSON.stringify(payload)} → ${JSON.stringify(answer)}`;
        assert.equal(answer.ok, true, shown);
        return answer;
    }

    /** Emits `event` and returns its refusal, which must have `code` (or one of several codes). */
    async expectRefusal(code, event, ...payload) {
        const answer = await this.ack(event, ...payload);
        assertRefusal(answer, code, `${event} ${String(JSON.stringify(payload)).slice(0, 200)}`);
        return answer;
    }

    async authenticate(user_id, username) {
        await this.request('authenticate', { user_id, username });
        await this.seen.next('authenticated', (data) => data.user_id === user_id);
        return this;
    }

    join(room_id, more) {
        return this.request('join', { room_id, ...more });
    }

    /** Sends a message. */
    send(room_id, content, more) {
        return this.request('message', { room_id, content, ...more });
    }

    /** The messages of one room, in the order of their arrival. */
    received(room_id, from = 0) {
        return this.seen.of('message', (message) => message.room_id === room_id, from);
    }

    /** The numbered events of one room, as entries `{event, data}` in the order of their arrival. */
    numbered(room_id, from = 0) {
        return this.seen.entries
            .slice(from)
            .filter(({ event, data }) => NUMBERED.includes(event) && data.room_id === room_id);
    }

    /** Waits for a message. */
    async receives(room_id, content, ms = DEADLINE_MS) {
        return this.seen.next(
            'message',
            (message) => message.room_id === room_id && message.content === content,
            ms,
        );
    }

    /**
     * Authenticates and rejoins a room on every reconnect, as an application does. Records the answer
     * to the join as the event `resumed`.
     */
    resumeOnReconnect(user_id, room_id, epoch) {
        this.socket.on('connect', () => {
            const since_seq = this.received(room_id).at(-1)?.seq ?? 0;
            this.socket.emit('authenticate', { user_id });
            this.socket.emit('join', { room_id, since_seq, epoch }, (answer) =>
                this.seen.push('resumed', answer),
            );
        });
    }

    close() {
        this.socket.close();
    }
}

export function assertRefusal(answer, code, description = 'refusal') {
    const shown = `${description} → ${JSON.stringify(answer)}`;
    assert.equal(answer?.ok, false, shown);
    assert.ok([code].flat().includes(answer.code), `${shown}, expected ${code}`);
    assert.ok(typeof answer.error === 'string' && answer.error.length > 0, shown);
}

/**
 * Asserts that `messages` have the numbers `first`, `first` + 1, …, without a hole or a repeat, and
 * belong to one epoch. After a restart of Redis there may be more `epochs`.
 */
export function assertNoHole(messages, first, description = 'messages', { epochs = 1 } = {}) {
    const seqs = messages.map((message) => message.seq);
    const wrong = seqs.findIndex((seq, index) => seq !== first + index);
    const around = seqs.slice(Math.max(0, wrong - 2), wrong + 3);
    const place = `at ${wrong} of ${seqs.length} expected seq ${first + wrong}, got ${around}`;
    assert.equal(wrong, -1, `${description}: ${place}`);
    const found = new Set(messages.map((message) => message.epoch)).size;
    assert.ok(found <= epochs, `${description}: more than ${epochs} epochs`);
}
