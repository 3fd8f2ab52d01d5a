// The record of everything that a client received.

import { DEADLINE_MS } from './wait.mjs';

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

    /** A position in the record, from which `waitFor` and `of` can start. */
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

    /**
     * The first entry that matches, already recorded or still to come. `predicate` takes an entry
     * `{event, data, at}`.
     */
    waitFor(predicate, ms = DEADLINE_MS, description = predicate, from = 0) {
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
            const timer = setTimeout(() => {
                const waited = `${this.name}: waited ${ms} ms for ${description}`;
                const last = `the last of ${this.entries.length} entries:\n  ${this.tail().join('\n  ')}`;
                done(reject, new Error(`${waited}; ${last}`));
            }, ms);
            this.waiting.add(waiter);
        });
    }

    /** The last entries as text, for error messages. */
    tail() {
        return this.entries
            .slice(-12)
            .map(({ event, data }) => `${event} ${JSON.stringify(data)?.slice(0, 160)}`);
    }

    /** The payload of the next `event` that satisfies `where`. */
    async next(event, where = () => true, ms = DEADLINE_MS, from = 0) {
        const matches = (entry) => entry.event === event && where(entry.data);
        return (await this.waitFor(matches, ms, `${event} (${where})`, from)).data;
    }
}
