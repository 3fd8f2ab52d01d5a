// What the tests share: nodes, Redis and a TCP proxy as children of the test, clients of every version, and a record of what each of them saw.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import ioV2 from 'socket.io-client-v2';
import { io as ioV3 } from 'socket.io-client-v3';
import { io as ioV4 } from 'socket.io-client-v4';
import WebSocket from 'ws';

const BINARY = process.env.HUBBUB_BIN ?? assert.fail('HUBBUB_BIN must name the binary under test');

/** How long anything that should happen at once may take, in ms: generous, because the machine may be busy. */
export const SOON = 8_000;

export const VERSIONS = ['2.5', '3.1', '4.8'];
export const TRANSPORTS = {
    polling: ['polling'],
    websocket: ['websocket'],
    upgrade: ['polling', 'websocket'],
};

/** Room for tests that send more than a person would. */
export const UNLIMITED = { RATE_EVENTS_PER_SEC: 1_000_000, RATE_EVENTS_BURST: 1_000_000 };

const EVENTS = [
    'authenticated',
    'message',
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

// --- Time

/** Polls until `probe` returns something truthy; throws when `ms` have passed. */
export async function eventually(probe, ms = SOON, what = 'condition') {
    const deadline = Date.now() + ms;
    let last;
    for (;;) {
        try {
            const value = await probe();
            if (value) return value;
            last = value;
        } catch (error) {
            last = error;
        }
        if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms (last: ${last})`);
        await pause(20);
    }
}

/** For pacing and polling only. Absence is proved by a sentinel, never by waiting. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function within(ms, what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: no answer within ${ms} ms`)), ms);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}

// --- Ports and children

// Below the ephemeral range, so that no outgoing connection takes a port between the choice and the bind (or a restart).
let nextPort = 10_000 + (process.pid % 800) * 25;

async function freePort() {
    for (;;) {
        const port = nextPort;
        nextPort = port >= 31_000 ? 10_000 : port + 1;
        const server = net.createServer().listen(port, '127.0.0.1');
        const free = await once(server, 'listening').then(
            () => true,
            () => false,
        );
        if (!free) continue;
        server.close();
        await once(server, 'close');
        return port;
    }
}

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

class Child {
    constructor(command, args, options) {
        this.log = [];
        this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
        children.add(this.process);
        for (const stream of [this.process.stdout, this.process.stderr]) {
            stream.setEncoding('utf8').on('data', (text) => this.log.push(text));
        }
        this.exited = new Promise((resolve) => {
            this.process.on('error', (error) => {
                this.log.push(String(error));
                resolve({ error });
            });
            this.process.on('exit', (code, signal) => {
                children.delete(this.process);
                resolve({ code, signal });
            });
        });
    }

    /** Sends a signal to this child only. */
    signal(name) {
        this.process.kill(name);
    }

    async kill() {
        this.signal('SIGCONT');
        this.signal('SIGKILL');
        await this.exited;
    }

    get alive() {
        return this.process.exitCode === null && this.process.signalCode === null;
    }

    tail(lines = 25) {
        return this.log.join('').split('\n').slice(-lines).join('\n');
    }
}

export class HubbubNode extends Child {
    constructor(port, env, directory) {
        super(BINARY, [], {
            cwd: directory,
            env: {
                PATH: process.env.PATH,
                SERVER_HOST: '127.0.0.1',
                SERVER_PORT: String(port),
                LOG_FORMAT: 'json',
                ...strings(env),
            },
        });
        this.port = port;
        this.url = `http://127.0.0.1:${port}`;
    }

    async ready(ms = 15_000) {
        const ready = eventually(
            async () => (await fetch(`${this.url}/readyz`)).status === 200,
            ms,
            'a node gets ready',
        );
        ready.catch(() => {});
        const ended = this.exited.then(() => {
            throw new Error(`the node ended:\n${this.tail()}`);
        });
        await Promise.race([ready, ended]);
        ended.catch(() => {});
        return this;
    }

    /** One REST request: `{status, headers, body}`, the body parsed when it is JSON. */
    async rest(method, route, { body, headers = {}, raw } = {}) {
        const json = body === undefined ? {} : { 'content-type': 'application/json' };
        const response = await fetch(this.url + route, {
            method,
            headers: { ...json, ...headers },
            body: raw ?? (body === undefined ? undefined : JSON.stringify(body)),
            signal: AbortSignal.timeout(SOON),
        });
        const text = await response.text();
        const isJson = (response.headers.get('content-type') ?? '').startsWith('application/json');
        return {
            status: response.status,
            headers: response.headers,
            body: isJson ? JSON.parse(text) : text,
        };
    }

    get(route, headers) {
        return this.rest('GET', route, { headers });
    }

    post(body, headers) {
        return this.rest('POST', '/messages', { body, headers });
    }
}

export class Redis extends Child {
    /** `durable`: every acknowledged write survives a kill. */
    constructor(port, directory, durable) {
        const keep = durable
            ? ['--appendonly', 'yes', '--appendfsync', 'always']
            : ['--appendonly', 'no'];
        super(
            'redis-server',
            [
                '--port',
                String(port),
                '--bind',
                '127.0.0.1',
                '--save',
                '',
                '--dir',
                directory,
                ...keep,
            ],
            {},
        );
        Object.assign(this, { port, directory, durable });
        this.url = `redis://127.0.0.1:${port}`;
    }

    ready() {
        return eventually(
            () =>
                new Promise((resolve, reject) => {
                    const link = net.connect(this.port, '127.0.0.1', () => link.write('PING\r\n'));
                    link.on('data', (data) => {
                        link.destroy();
                        resolve(data.includes('PONG'));
                    });
                    link.on('error', reject);
                }),
            SOON,
            'Redis answers',
        );
    }
}

const strings = (env) =>
    Object.fromEntries(Object.entries(env).map(([key, value]) => [key, String(value)]));

/** A TCP proxy in front of a node: drops connections as a bad network does, or stands for a load balancer. */
export class Proxy {
    constructor(node) {
        this.node = node;
        this.refusing = false;
        this.links = new Set();
        this.server = net.createServer((near) => {
            if (this.refusing) return near.destroy();
            const far = net.connect(this.node.port, '127.0.0.1');
            for (const [one, other] of [
                [near, far],
                [far, near],
            ]) {
                this.links.add(one);
                one.pipe(other);
                one.on('error', () => {});
                one.on('close', () => {
                    this.links.delete(one);
                    other.destroy();
                });
            }
        });
    }

    async listen() {
        this.server.listen(0, '127.0.0.1');
        await once(this.server, 'listening');
        this.url = `http://127.0.0.1:${this.server.address().port}`;
        return this;
    }

    /** Cuts every connection. */
    drop() {
        this.links.forEach((link) => link.destroy());
    }

    /** Cuts every connection and lets nobody in until `heal()`. */
    cut() {
        this.refusing = true;
        this.drop();
    }

    heal() {
        this.refusing = false;
    }

    async close() {
        this.cut();
        this.server.close();
    }
}

// --- What a client saw

export class Recorder {
    constructor(name) {
        this.name = name;
        this.entries = [];
        this.waiting = new Set();
    }

    push(event, data) {
        const entry = { event, data, at: Date.now() };
        this.entries.push(entry);
        for (const waiter of this.waiting) waiter(entry);
    }

    /** A place in the record; `waitFor` and `of` can start there. */
    mark() {
        return this.entries.length;
    }

    /** The payloads of `event`, in the order of their arrival. */
    of(event, where = () => true, from = 0) {
        return this.entries
            .slice(from)
            .filter((entry) => entry.event === event && where(entry.data))
            .map((entry) => entry.data);
    }

    /** The first entry that matches, already there or still to come. `predicate` takes an entry `{event, data, at}`. */
    waitFor(predicate, ms = SOON, what = predicate, from = 0) {
        const already = this.entries.slice(from).find(predicate);
        if (already) return Promise.resolve(already);
        return new Promise((resolve, reject) => {
            const done = (settle, value) => {
                clearTimeout(timer);
                this.waiting.delete(waiter);
                settle(value);
            };
            const waiter = (entry) => {
                if (predicate(entry)) done(resolve, entry);
            };
            const seen = () =>
                this.entries
                    .slice(-12)
                    .map(({ event, data }) => `${event} ${JSON.stringify(data)?.slice(0, 160)}`);
            const timer = setTimeout(
                () =>
                    done(
                        reject,
                        new Error(
                            `${this.name}: waited ${ms} ms for ${what}; the last of ${this.entries.length} seen:\n  ${seen().join('\n  ')}`,
                        ),
                    ),
                ms,
            );
            this.waiting.add(waiter);
        });
    }

    /** The payload of the next `event` for which `where` holds. */
    async next(event, where = () => true, ms = SOON, from = 0) {
        return (
            await this.waitFor(
                (entry) => entry.event === event && where(entry.data),
                ms,
                `${event} (${where})`,
                from,
            )
        ).data;
    }
}

/** A Socket.IO client of any version and the record of what it saw. */
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
        if (version === '2.5') {
            if (headers)
                common.transportOptions = {
                    polling: { extraHeaders: headers },
                    websocket: { extraHeaders: headers },
                };
            this.socket = ioV2(url, common);
        } else {
            this.socket = (version === '3.1' ? ioV3 : ioV4)(url, { ...common, auth });
        }
        for (const event of EVENTS)
            this.socket.on(event, (data) =>
                this.seen.push(event, data instanceof Error ? data.message : data),
            );
        // Version 2 has the server's refusal as `error`; elsewhere that name is free.
        if (version === '2.5')
            this.socket.on('error', (data) =>
                this.seen.push('connect_error', data?.message ?? data),
            );
    }

    async connected(ms = SOON) {
        if (!this.socket.connected)
            await this.seen.next('connect', undefined, ms, this.seen.mark());
        return this;
    }

    /** The name of the transport in use. */
    get transport() {
        return this.socket.io.engine?.transport?.name;
    }

    upgraded() {
        return eventually(() => this.transport === 'websocket', SOON, 'the upgrade to WebSocket');
    }

    /** The acknowledgement of `event`. It is recorded too, so that its place among the events can be checked. */
    ack(event, ...payload) {
        return this.ackWithin(SOON, event, ...payload);
    }

    ackWithin(ms, event, ...payload) {
        const what = `ack of ${event} ${String(JSON.stringify(payload)).slice(0, 120)}`;
        const key = `ack:${event}`;
        return new Promise((resolve, reject) => {
            let settled = false;
            const settle = (how, value) => {
                settled = true;
                how(value);
            };
            this.socket.emit(event, ...payload, (answer) => {
                this.seen.push(key, answer);
                settle(resolve, answer);
            });
            this.seen
                .waitFor(
                    (entry) => settled || entry.event === 'disconnect',
                    ms,
                    what,
                    this.seen.mark(),
                )
                .then(
                    () =>
                        settled ||
                        settle(
                            reject,
                            new Error(
                                `${what} (${this.seen.name}): the connection was closed instead`,
                            ),
                        ),
                    (late) => settled || settle(reject, late),
                );
        });
    }

    /** The acknowledgement of `event`, which must be positive. */
    async ask(event, payload) {
        const answer = await this.ack(event, payload);
        assert.equal(
            answer.ok,
            true,
            `${event} ${JSON.stringify(payload)} → ${JSON.stringify(answer)}`,
        );
        return answer;
    }

    /** The refusal of `event`, which must carry `code` (one, or one of several). */
    async refused(code, event, ...payload) {
        const answer = await this.ack(event, ...payload);
        assertRefusal(answer, code, `${event} ${String(JSON.stringify(payload)).slice(0, 200)}`);
        return answer;
    }

    async authenticate(user_id, username) {
        await this.ask('authenticate', { user_id, username });
        await this.seen.next('authenticated', (who) => who.user_id === user_id);
        return this;
    }

    join(room_id, more) {
        return this.ask('join', { room_id, ...more });
    }

    say(room_id, content, more) {
        return this.ask('message', { room_id, content, ...more });
    }

    /** The messages of one room as they came. */
    heard(room_id, from = 0) {
        return this.seen.of('message', (message) => message.room_id === room_id, from);
    }

    async hears(room_id, content, ms = SOON) {
        return this.seen.next(
            'message',
            (message) => message.room_id === room_id && message.content === content,
            ms,
        );
    }

    close() {
        this.socket.close();
    }
}

export function assertRefusal(answer, code, what = 'refusal') {
    const shown = `${what} → ${JSON.stringify(answer)}`;
    assert.equal(answer?.ok, false, shown);
    assert.ok([code].flat().includes(answer.code), `${shown}, expected ${code}`);
    assert.ok(typeof answer.error === 'string' && answer.error.length > 0, shown);
}

/** `messages` have the sequence numbers `first`, `first`+1, …: no hole, no repeat; all of one epoch, unless Redis was started anew in between. */
export function assertNoHole(messages, first, what = 'messages', { epochs = 1 } = {}) {
    const seqs = messages.map((message) => message.seq);
    const wrong = seqs.findIndex((seq, index) => seq !== first + index);
    assert.equal(
        wrong,
        -1,
        `${what}: at ${wrong} of ${seqs.length} expected seq ${first + wrong}, got ${seqs.slice(Math.max(0, wrong - 2), wrong + 3)}`,
    );
    assert.ok(
        new Set(messages.map((message) => message.epoch)).size <= epochs,
        `${what}: more than ${epochs} epochs`,
    );
}

// --- A raw WebSocket, for what no client would send

export class RawClient {
    constructor(url, { headers, query = '' } = {}) {
        this.ws = new WebSocket(
            `${url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket${query}`,
            { headers },
        );
        this.seen = new Recorder('raw client');
        this.nextId = 0;
        this.ws.on('message', (data, isBinary) => {
            const text = String(data);
            if (isBinary) this.seen.push('binary', data);
            else if (text === '2') this.ws.send('3');
            else {
                const [, id, body] = /^43(\d+)(.*)$/s.exec(text) ?? [];
                if (id !== undefined) return this.seen.push(`ack:${id}`, JSON.parse(body)[0]);
                if (text.startsWith('42')) {
                    const [event, payload] = JSON.parse(text.slice(2));
                    return this.seen.push(event, payload);
                }
                this.seen.push('packet', text);
            }
        });
        this.ws.on('close', (code) => this.seen.push('close', code));
        this.ws.on('error', (error) => this.seen.push('failure', error.message));
    }

    /** Enters the namespace `/`. */
    async connected() {
        await this.seen.next('packet', (text) => text.startsWith('0'));
        this.ws.send('40');
        await this.seen.next('packet', (text) => text.startsWith('40'));
        return this;
    }

    /** Emits with `json` as it stands as the arguments, and gives the acknowledgement. `attachments` follow as binary frames. */
    async ack(event, json, attachments = []) {
        const id = this.nextId++;
        const kind = attachments.length ? `5${attachments.length}-` : '2';
        this.ws.send(`4${kind}${id}[${event}${json === undefined ? '' : `,${json}`}]`);
        attachments.forEach((attachment) => this.ws.send(attachment));
        const done = await this.seen.waitFor(
            (entry) => entry.event === `ack:${id}` || entry.event === 'close',
            SOON,
            `ack of ${event} ${json?.slice(0, 80)}`,
        );
        assert.notEqual(
            done.event,
            'close',
            `the connection was closed at ${event} ${json?.slice(0, 80)}`,
        );
        return done.data;
    }

    close() {
        this.ws.terminate();
    }
}

// --- A test's own world

export class Lab {
    constructor() {
        this.clients = [];
        this.proxies = [];
        this.nodes = [];
        this.others = [];
        this.directories = [];
    }

    directory() {
        const directory = mkdtempSync(path.join(tmpdir(), 'hubbub-clients-'));
        this.directories.push(directory);
        return directory;
    }

    /** A node that has been started, but need not be ready. */
    async start(env = {}) {
        const node = new HubbubNode(
            await freePort(),
            { ...(env.JWT_SECRET ? {} : { AUTH_MODE: 'open' }), ...env },
            this.directory(),
        );
        this.nodes.push(node);
        return node;
    }

    async node(env) {
        return (await this.start(env)).ready();
    }

    /** A Redis, or `before` again: on the same port, with the same data when it is durable. */
    async redis({ durable = false, before } = {}) {
        const redis = new Redis(
            before?.port ?? (await freePort()),
            before?.directory ?? this.directory(),
            before?.durable ?? durable,
        );
        this.others.push(redis);
        await redis.ready();
        return redis;
    }

    /** Several nodes over one Redis (`this.store`). */
    async cluster(count, env = {}, options = {}) {
        this.store = await this.redis(options);
        return Promise.all(
            Array.from({ length: count }, () => this.node({ REDIS_URL: this.store.url, ...env })),
        );
    }

    async proxy(node) {
        const proxy = await new Proxy(node).listen();
        this.proxies.push(proxy);
        return proxy;
    }

    /** A client that is not necessarily connected yet. */
    client(version, target, options) {
        const client = new Client(version, target.url ?? target, options);
        this.clients.push(client);
        return client;
    }

    /** A connected and authenticated version 4 client over WebSocket. */
    async user(target, user_id, { version = '4.8', username, ...options } = {}) {
        const client = await this.client(version, target, options).connected();
        client.seen.name = user_id;
        return client.authenticate(user_id, username);
    }

    async member(target, user_id, room_id, options) {
        const client = await this.user(target, user_id, options);
        await client.join(room_id);
        return client;
    }

    /** A headless browser, the same one for all of a test. */
    async browser() {
        if (!this.chromium) {
            const { Browser } = await import('./browser.mjs');
            this.chromium = await Browser.start(this.directory());
            this.others.push(this.chromium);
        }
        return this.chromium;
    }

    raw(target, options) {
        const client = new RawClient(target.url ?? target, options);
        this.clients.push(client);
        return client;
    }

    explain(t) {
        this.nodes.forEach((node, index) =>
            t.diagnostic(`node ${index} (port ${node.port}) said last:\n${node.tail()}`),
        );
    }

    async close() {
        this.clients.forEach((client) => client.close());
        await Promise.all(this.proxies.map((proxy) => proxy.close()));
        await Promise.all([...this.nodes, ...this.others].map((child) => child.kill()));
        this.directories.forEach((directory) =>
            rmSync(directory, { recursive: true, force: true }),
        );
    }
}

/** A test with a lab of its own, which is torn down whatever happens. */
export function scenario(name, body, { timeout = 60_000 } = {}) {
    test(name, { timeout }, async (t) => {
        const lab = new Lab();
        t.after(() => lab.close());
        try {
            await body(lab, t);
        } catch (error) {
            lab.explain(t);
            throw error;
        }
    });
}

/** The nodes of one backplane; alone on the embedded one, the same node stands for each of `count`. */
export async function nodesOn(lab, backplane, count, env = {}) {
    if (backplane === 'redis') return lab.cluster(count, env);
    return Array(count).fill(await lab.node(env));
}

export const BACKPLANES = ['embedded', 'redis'];

/** One test for each backplane. */
export function onEachBackplane(name, { nodes = 2, env = {}, timeout } = {}, body) {
    for (const backplane of BACKPLANES) {
        scenario(
            `${name} [${backplane}]`,
            async (lab, t) => body(lab, await nodesOn(lab, backplane, nodes, env), t),
            { timeout },
        );
    }
}

// --- Tokens

export const SECRET = 'a-secret-for-tests-that-is-long-enough';

/** A JWT signed with HS256; `exp` in an hour unless told otherwise (`exp: null` leaves it out). */
export function token(claims, { secret = SECRET, header = {} } = {}) {
    const now = Math.floor(Date.now() / 1000);
    const all = { exp: now + 3600, ...claims };
    if (all.exp === null) delete all.exp;
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: 'HS256', typ: 'JWT', ...header })}.${part(all)}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;
