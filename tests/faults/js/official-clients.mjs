// Clients that use the official JavaScript libraries of three major versions, and behave as
// docs/protocol.md (section 10) asks. Each writes its observations to the standard output, one
// record (see src/history.rs) per line; commands come as lines on the standard input: "start" and
// "stop" (sending messages), "drop <ms>" (break all connections within this time).
//
// The argument is JSON: {urls: [url], clients: [{name, user, rooms, version, send_interval_ms}],
// elapsed_micros}. elapsed_micros is the time since the run began, in microseconds.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const MIN_RECONNECT_DELAY_MS = 300;
const MAX_RECONNECT_DELAY_MS = 1000;
const DEFAULT_RETRY_DELAY_MS = 1000;
const ACK_TIMEOUT_MS = 10_000;
const MAX_UNSENT = 30;

const load = createRequire(new URL("../../clients/package.json", import.meta.url));
const libraries = {
  2: load("socket.io-client-v2"),
  3: load("socket.io-client-v3"),
  4: load("socket.io-client-v4"),
};

const config = JSON.parse(process.argv[2]);
const began = performance.now() - config.elapsed_micros / 1000;
const elapsedMicros = () => Math.round((performance.now() - began) * 1000);
const record = (source, fact, fields = {}) => {
  const at = Math.floor(elapsedMicros() / 1000);
  process.stdout.write(`${JSON.stringify({ at, source, fact, ...fields })}\n`);
};

// As `digest` in src/history.rs.
const digest = (content) => {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(content)) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return hash >>> 0;
};

let sending = false;

class Client {
  constructor({ name, user, rooms, version, send_interval_ms }, urlIndex) {
    this.name = name;
    this.user = user;
    this.rooms = rooms;
    this.io = libraries[version].io ?? libraries[version];
    this.sendInterval = send_interval_ms;
    this.urlIndex = urlIndex;
    // By room: the epoch and seq of the last message received.
    this.positions = {};
    // Messages without an acknowledgement, in order. The first one may be in flight.
    this.unsent = [];
    this.produced = 0;
    this.inFlight = false;
    this.joined = new Set();
    this.connect();
    if (this.sendInterval > 0) this.scheduleMessage();
  }

  scheduleMessage() {
    const produce = () => {
      if (sending && this.unsent.length < MAX_UNSENT) {
        this.produced += 1;
        const room = this.rooms[this.produced % this.rooms.length];
        this.unsent.push({ room, msg: `${this.name}-${this.produced}` });
        this.send();
      }
      this.scheduleMessage();
    };
    setTimeout(produce, this.sendInterval * (0.5 + Math.random()));
  }

  connect() {
    const url = config.urls[this.urlIndex % config.urls.length];
    const options = { transports: ["websocket"], forceNew: true, reconnectionDelay: 500 };
    const socket = this.io(url, options);
    this.socket = socket;
    this.isConnected = false;
    socket.on("connect", () => this.authenticate());
    // The library's manager reconnects to the same URL. Behind a load balancer it would reach
    // another node, so this client uses the next URL instead.
    const reconnectElsewhere = () => {
      if (this.socket !== socket) return;
      socket.close();
      this.urlIndex += 1;
      const range = MAX_RECONNECT_DELAY_MS - MIN_RECONNECT_DELAY_MS;
      setTimeout(() => this.connect(), MIN_RECONNECT_DELAY_MS + Math.random() * range);
    };
    socket.on("disconnect", (reason) => {
      if (this.isConnected) record(this.name, "disconnected");
      this.isConnected = false;
      this.joined.clear();
      // The lab never causes a DISCONNECT by the server. Every official client stays disconnected
      // after one; this client does, too, so the messages that it misses count as missing.
      if (reason !== "io server disconnect") reconnectElsewhere();
    });
    socket.on("connect_error", reconnectElsewhere);
    this.handleEvents(socket);
  }

  handleEvents(socket) {
    socket.on("message", (message) => {
      const { room_id: room, epoch, seq, id, client_msg_id: msg, user_id: user } = message;
      this.positions[room] = { epoch, seq };
      const content = digest(message.content);
      record(this.name, "received", { room, epoch, seq, id, msg: msg ?? null, user, content });
    });
    socket.on("room_reset", ({ room_id: room, epoch, seq, lost_from }) => {
      this.positions[room] = { epoch, seq };
      record(this.name, "reset", { room, epoch, seq, lost_from: lost_from ?? null });
    });
    socket.on("room_users", ({ room_id: room, users, total }) => {
      record(this.name, "room_users", { room, users, total });
    });
    socket.on("user_joined", ({ room_id: room, user_id: user }) => {
      record(this.name, "user_joined", { room, user });
    });
    socket.on("user_left", ({ room_id: room, user_id: user }) => {
      record(this.name, "user_left", { room, user });
    });
  }

  authenticate() {
    const { socket } = this;
    socket.emit("authenticate", { user_id: this.user }, (answer) => {
      if (!answer.ok) return socket.io.engine.close();
      this.isConnected = true;
      record(this.name, "connected", { user: this.user });
      for (const room of this.rooms) this.join(room);
    });
  }

  join(room) {
    const { socket } = this;
    const since = this.positions[room] ?? null;
    const request = { room_id: room };
    if (since) Object.assign(request, { since_seq: since.seq, epoch: since.epoch });
    socket.emit("join", request, (answer) => {
      if (!answer.ok) {
        const retry = () => {
          if (this.socket === socket && socket.connected) this.join(room);
        };
        setTimeout(retry, answer.retry_after_ms ?? DEFAULT_RETRY_DELAY_MS);
        return;
      }
      const { epoch, seq, recovered, gap, replayed } = answer;
      this.positions[room] = { epoch, seq: since && recovered ? since.seq : seq - replayed };
      record(this.name, "joined", { room, since, epoch, seq, recovered, gap, replayed });
      this.joined.add(room);
      this.inFlight = false;
      this.send();
    });
  }

  // Sends one message at a time, with the same client_msg_id until it is acknowledged.
  send() {
    const message = this.unsent[0];
    const { socket } = this;
    if (!message || this.inFlight || !this.isConnected || !this.joined.has(message.room)) return;
    const { room, msg } = message;
    this.inFlight = true;
    const retryAfter = (delay) => {
      clearTimeout(timeout);
      setTimeout(() => {
        if (this.socket !== socket || this.unsent[0] !== message) return;
        this.inFlight = false;
        this.send();
      }, delay);
    };
    const timeout = setTimeout(() => retryAfter(0), ACK_TIMEOUT_MS);
    const content = String(elapsedMicros());
    record(this.name, "sent", { room, msg, content: digest(content) });
    const payload = { room_id: room, content, client_msg_id: msg };
    socket.emit("message", payload, (answer) => {
      if (this.unsent[0] !== message) return;
      if (!answer.ok) {
        record(this.name, "refused", { room, msg, code: answer.code });
        return retryAfter(answer.retry_after_ms ?? DEFAULT_RETRY_DELAY_MS);
      }
      clearTimeout(timeout);
      const { id, epoch, seq, duplicate } = answer;
      record(this.name, "acked", { room, msg, id, epoch, seq, duplicate });
      this.unsent.shift();
      this.inFlight = false;
      this.send();
    });
  }

  // Simulates a lost network: the transport breaks without a packet of Socket.IO.
  drop() {
    this.socket.io.engine?.close();
  }
}

const clients = config.clients.map((client, index) => new Client(client, index));

const handleCommand = (line) => {
  const [command, milliseconds] = line.split(" ");
  if (command === "start") sending = true;
  if (command === "stop") sending = false;
  if (command !== "drop") return;
  for (const client of clients) {
    setTimeout(() => client.drop(), Math.random() * Number(milliseconds));
  }
};
createInterface({ input: process.stdin })
  .on("line", handleCommand)
  .on("close", () => process.exit(0));
