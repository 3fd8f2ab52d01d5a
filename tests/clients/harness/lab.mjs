// Everything that a test starts, and tests as scenarios.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Client } from './client.mjs';
import { freePort, HubbubNode, Redis } from './processes.mjs';
import { Proxy } from './proxy.mjs';
import { RawClient } from './raw-client.mjs';

/** Rates for tests that send more than a person would. */
export const UNLIMITED = { RATE_EVENTS_PER_SEC: 1_000_000, RATE_EVENTS_BURST: 1_000_000 };

/** Owns the nodes, Redis servers, proxies and clients of one test, and closes all of them. */
export class Lab {
    constructor() {
        this.clients = [];
        this.proxies = [];
        this.nodes = [];
        this.otherProcesses = [];
        this.directories = [];
    }

    directory() {
        const directory = mkdtempSync(path.join(tmpdir(), 'hubbub-clients-'));
        this.directories.push(directory);
        return directory;
    }

    /** Starts a node without waiting until it is ready. */
    async start(env = {}) {
        const mode = env.JWT_SECRET ? {} : { AUTH_MODE: 'open' };
        const node = new HubbubNode(await freePort(), { ...mode, ...env }, this.directory());
        this.nodes.push(node);
        return node;
    }

    async node(env) {
        return (await this.start(env)).ready();
    }

    /** Starts a node that was killed again: with its port, its settings and its files. */
    async restart(node) {
        const again = new HubbubNode(node.port, node.env, node.directory);
        this.nodes.push(again);
        return again.ready();
    }

    /**
     * Starts a Redis. `restartOf` names an earlier one: the new one gets its port, and its data if
     * that one was durable.
     */
    async redis({ durable = false, restartOf } = {}) {
        const redis = new Redis(
            restartOf?.port ?? (await freePort()),
            restartOf?.directory ?? this.directory(),
            restartOf?.durable ?? durable,
        );
        this.otherProcesses.push(redis);
        await redis.ready();
        return redis;
    }

    /** Starts several nodes that share one Redis (`this.redisServer`). */
    async cluster(count, env = {}, options = {}) {
        this.redisServer = await this.redis(options);
        const node = () => this.node({ REDIS_URL: this.redisServer.url, ...env });
        return Promise.all(Array.from({ length: count }, node));
    }

    async proxy(node) {
        const proxy = await new Proxy(node).listen();
        this.proxies.push(proxy);
        return proxy;
    }

    /** A client that may not be connected yet. */
    client(version, target, options) {
        const client = new Client(version, target.url ?? target, options);
        this.clients.push(client);
        return client;
    }

    /** A connected and authenticated client; by default version 4 over WebSocket. */
    async user(target, user_id, { version = '4.8', username, ...options } = {}) {
        const client = await this.client(version, target, options).connected();
        client.seen.name = user_id;
        return client.authenticate(user_id, username);
    }

    /** The same, after a join. */
    async member(target, user_id, room_id, options) {
        const client = await this.user(target, user_id, options);
        await client.join(room_id);
        return client;
    }

    /** A headless browser: one for the whole test. */
    async browser() {
        if (!this.chromium) {
            const { Browser } = await import('./browser.mjs');
            this.chromium = await Browser.start(this.directory());
            this.otherProcesses.push(this.chromium);
        }
        return this.chromium;
    }

    raw(target, options) {
        const client = new RawClient(target.url ?? target, options);
        this.clients.push(client);
        return client;
    }

    /** Adds the last lines of every node's log to the report of the test. */
    reportLogs(t) {
        this.nodes.forEach((node, index) =>
            t.diagnostic(
                `the last log lines of node ${index} (port ${node.port}):\n${node.tail()}`,
            ),
        );
    }

    async close() {
        this.clients.forEach((client) => client.close());
        await Promise.all(this.proxies.map((proxy) => proxy.close()));
        const processes = [...this.nodes, ...this.otherProcesses];
        await Promise.all(processes.map((child) => child.kill()));
        this.directories.forEach((directory) =>
            rmSync(directory, { recursive: true, force: true }),
        );
    }
}

/** A test with its own lab, which is always closed at the end. */
export function scenario(name, body, { timeout = 60_000 } = {}) {
    test(name, { timeout }, async (t) => {
        const lab = new Lab();
        t.after(() => lab.close());
        try {
            await body(lab, t);
        } catch (error) {
            lab.reportLogs(t);
            throw error;
        }
    });
}

export const BACKPLANES = ['embedded', 'redis'];

/**
 * Starts `count` nodes on one backplane. The embedded backplane has one node, which is returned
 * `count` times.
 */
export async function nodesOn(lab, backplane, count, env = {}) {
    if (backplane === 'redis') return lab.cluster(count, env);
    return Array(count).fill(await lab.node(env));
}

/** Defines one test for each backplane. */
export function onEachBackplane(name, { nodes = 2, env = {}, timeout } = {}, body) {
    for (const backplane of BACKPLANES) {
        scenario(
            `${name} [${backplane}]`,
            async (lab, t) => body(lab, await nodesOn(lab, backplane, nodes, env), t),
            { timeout },
        );
    }
}
