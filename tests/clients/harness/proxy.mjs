// A TCP proxy between clients and a node.

import { once } from 'node:events';
import net from 'node:net';

/** Drops connections as a bad network does, or acts as a load balancer: `node` may be changed. */
export class Proxy {
    constructor(node) {
        this.node = node;
        this.refusing = false;
        this.connections = new Set();
        this.server = net.createServer((near) => {
            if (this.refusing) return near.destroy();
            const far = net.connect(this.node.port, '127.0.0.1');
            this.pipe(near, far);
            this.pipe(far, near);
        });
    }

    pipe(from, to) {
        this.connections.add(from);
        from.pipe(to);
        from.on('error', () => {});
        from.on('close', () => {
            this.connections.delete(from);
            to.destroy();
        });
    }

    async listen() {
        this.server.listen(0, '127.0.0.1');
        await once(this.server, 'listening');
        this.url = `http://127.0.0.1:${this.server.address().port}`;
        return this;
    }

    /** Closes every connection. */
    drop() {
        this.connections.forEach((connection) => connection.destroy());
    }

    /** Closes every connection and refuses new ones until `heal()`. */
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
