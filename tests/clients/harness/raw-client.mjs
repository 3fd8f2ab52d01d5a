// A raw WebSocket with Engine.IO and Socket.IO packets, for input that no official client sends.

import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { Recorder } from './recorder.mjs';
import { DEADLINE_MS } from './wait.mjs';

export class RawClient {
    constructor(url, { headers, query = '' } = {}) {
        const address = `${url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket${query}`;
        this.ws = new WebSocket(address, { headers });
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

    /** Connects to the namespace `/`. */
    async connected() {
        await this.seen.next('packet', (text) => text.startsWith('0'));
        this.ws.send('40');
        await this.seen.next('packet', (text) => text.startsWith('40'));
        return this;
    }

    /**
     * Emits an event with `json` unchanged as its arguments, and returns the acknowledgement.
     * `attachments` follow as binary frames.
     */
    async ack(event, json, attachments = []) {
        const id = this.nextId++;
        const kind = attachments.length ? `5${attachments.length}-` : '2';
        this.ws.send(`4${kind}${id}[${event}${json === undefined ? '' : `,${json}`}]`);
        attachments.forEach((attachment) => this.ws.send(attachment));
        const shown = `${event} ${json?.slice(0, 80)}`;
        const done = await this.seen.waitFor(
            (entry) => entry.event === `ack:${id}` || entry.event === 'close',
            DEADLINE_MS,
            `ack of ${shown}`,
        );
        assert.notEqual(done.event, 'close', `the connection was closed at ${shown}`);
        return done.data;
    }

    close() {
        this.ws.terminate();
    }
}
