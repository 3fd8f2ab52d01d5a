// hubbub nodes and Redis servers as child processes of the test.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { DEADLINE_MS, eventually } from './wait.mjs';

const BINARY = process.env.HUBBUB_BIN ?? assert.fail('HUBBUB_BIN must name the binary under test');

// Below the ephemeral range, so that no outgoing connection takes a port between the choice and the
// bind, or before a restart on the same port.
let nextPort = 10_000 + (process.pid % 800) * 25;

export async function freePort() {
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
        // A stopped process continues first.
        this.signal('SIGCONT');
        this.signal('SIGKILL');
        await this.exited;
    }

    get alive() {
        return this.process.exitCode === null && this.process.signalCode === null;
    }

    /** The last lines of the log. */
    tail(lines = 25) {
        return this.log.join('').split('\n').slice(-lines).join('\n');
    }
}

const strings = (env) =>
    Object.fromEntries(Object.entries(env).map(([key, value]) => [key, String(value)]));

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
        Object.assign(this, { port, env, directory });
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

    /** One REST request: `{status, headers, body}`, with a JSON body parsed. */
    async rest(method, route, { body, headers = {}, raw } = {}) {
        const json = body === undefined ? {} : { 'content-type': 'application/json' };
        const response = await fetch(this.url + route, {
            method,
            headers: { ...json, ...headers },
            body: raw ?? (body === undefined ? undefined : JSON.stringify(body)),
            signal: AbortSignal.timeout(DEADLINE_MS),
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

    /** `POST /messages`. */
    post(body, headers) {
        return this.rest('POST', '/messages', { body, headers });
    }
}

export class Redis extends Child {
    /** `durable`: every acknowledged write survives a kill. */
    constructor(port, directory, durable) {
        const persistence = durable
            ? ['--appendonly', 'yes', '--appendfsync', 'always']
            : ['--appendonly', 'no'];
        const address = ['--port', String(port), '--bind', '127.0.0.1'];
        super('redis-server', [...address, '--save', '', '--dir', directory, ...persistence], {});
        Object.assign(this, { port, directory, durable });
        this.url = `redis://127.0.0.1:${port}`;
    }

    ready() {
        return eventually(() => this.answersPing(), DEADLINE_MS, 'Redis answers');
    }

    answersPing() {
        return new Promise((resolve, reject) => {
            const connection = net.connect(this.port, '127.0.0.1', () =>
                connection.write('PING\r\n'),
            );
            connection.on('data', (data) => {
                connection.destroy();
                resolve(data.includes('PONG'));
            });
            connection.on('error', reject);
        });
    }
}
