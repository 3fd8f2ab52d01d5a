// Official JavaScript clients of three major versions, doing what docs/protocol.md says a client should do. Each writes
// down what it sees, one record a line on stdout; orders come as lines on stdin. The argument is the task as JSON:
// {doors: [url], clients: [{name, user, rooms, version, pace}], micros: the age of the run in microseconds}.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const load = createRequire(new URL("../../clients/package.json", import.meta.url));
const libraries = { 2: load("socket.io-client-v2"), 3: load("socket.io-client-v3"), 4: load("socket.io-client-v4") };

const task = JSON.parse(process.argv[2]);
const began = performance.now() - task.micros / 1000;
const micros = () => Math.round((performance.now() - began) * 1000);
const write = (who, what, fields = {}) =>
  process.stdout.write(`${JSON.stringify({ at: Math.floor(micros() / 1000), who, what, ...fields })}\n`);

let loud = false;

class Client {
  constructor(part, index) {
    Object.assign(this, part);
    this.at = {};
    this.unsent = [];
    this.numbered = 0;
    this.underWay = false;
    this.joined = new Set();
    this.door = index;
    const io = libraries[this.version].io ?? libraries[this.version];
    this.open = () => this.wire(io(task.doors[this.door % task.doors.length], { transports: ["websocket"], forceNew: true, reconnectionDelay: 500 }));
    this.open();
    if (this.pace > 0) this.plan();
  }

  plan() {
    setTimeout(() => {
      if (loud && this.unsent.length < 30) {
        this.numbered += 1;
        const room = this.rooms[this.numbered % this.rooms.length];
        this.unsent.push({ room, msg: `${this.name}-${this.numbered}` });
        this.send();
      }
      this.plan();
    }, this.pace * (0.5 + Math.random()));
  }

  wire(socket) {
    this.socket = socket;
    this.isOpen = false;
    socket.on("connect", () => this.enter());
    // The manager keeps knocking at the same door; a page behind a load balancer would find another, and so does this.
    const elsewhere = () => {
      if (this.socket !== socket) return;
      socket.close();
      this.door += 1;
      setTimeout(this.open, 300 + Math.random() * 700);
    };
    socket.on("disconnect", (reason) => {
      if (this.isOpen) write(this.name, "closed");
      this.isOpen = false;
      this.joined.clear();
      // Not to be: the lab ends no identity. As every official client, it stays away then, and so is found missing.
      if (reason !== "io server disconnect") elsewhere();
    });
    socket.on("connect_error", elsewhere);
    socket.on("message", (m) => {
      this.stand(m.room_id, m.epoch, m.seq);
      const { room_id: room, epoch, seq, id, client_msg_id: msg, user_id: user } = m;
      write(this.name, "got", { room, epoch, seq, id, msg: msg ?? null, user });
    });
    socket.on("room_reset", (m) => {
      this.stand(m.room_id, m.epoch, m.seq);
      write(this.name, "reset", { room: m.room_id, epoch: m.epoch, seq: m.seq, lost_from: m.lost_from ?? null });
    });
    socket.on("room_users", (m) => write(this.name, "roster", { room: m.room_id, users: m.users, total: m.total }));
    socket.on("user_joined", (m) => write(this.name, "entered", { room: m.room_id, user: m.user_id }));
    socket.on("user_left", (m) => write(this.name, "went", { room: m.room_id, user: m.user_id }));
  }

  stand(room, epoch, seq) {
    this.at[room] = { epoch, seq };
  }

  enter() {
    const { socket } = this;
    socket.emit("authenticate", { user_id: this.user }, (answer) => {
      if (!answer.ok) return socket.io.engine.close();
      this.isOpen = true;
      write(this.name, "opened", { user: this.user });
      for (const room of this.rooms) this.join(room);
    });
  }

  join(room) {
    const { socket } = this;
    const since = this.at[room] ?? null;
    const ask = since ? { room_id: room, since_seq: since.seq, epoch: since.epoch } : { room_id: room };
    socket.emit("join", ask, (a) => {
      if (!a.ok) return setTimeout(() => this.socket === socket && socket.connected && this.join(room), a.retry_after_ms ?? 1000);
      this.stand(room, a.epoch, since && a.recovered ? since.seq : a.seq - a.replayed);
      const { epoch, seq, recovered, gap, replayed } = a;
      write(this.name, "joined", { room, since, epoch, seq, recovered, gap, replayed });
      this.joined.add(room);
      this.underWay = false;
      this.send();
    });
  }

  // One at a time, the same name until it is acknowledged.
  send() {
    const draft = this.unsent[0];
    const { socket } = this;
    if (!draft || this.underWay || !this.isOpen || !this.joined.has(draft.room)) return;
    const { room, msg } = draft;
    this.underWay = true;
    const again = (wait) => {
      clearTimeout(patience);
      setTimeout(() => {
        if (this.socket !== socket || this.unsent[0] !== draft) return;
        this.underWay = false;
        this.send();
      }, wait);
    };
    const patience = setTimeout(() => again(0), 10_000);
    write(this.name, "sent", { room, msg });
    socket.emit("message", { room_id: room, content: String(micros()), client_msg_id: msg }, (a) => {
      if (this.unsent[0] !== draft) return;
      if (!a.ok) {
        write(this.name, "refused", { room, msg, code: a.code });
        return again(a.retry_after_ms ?? 1000);
      }
      clearTimeout(patience);
      write(this.name, "acked", { room, msg, id: a.id, epoch: a.epoch, seq: a.seq, duplicate: a.duplicate });
      this.unsent.shift();
      this.underWay = false;
      this.send();
    });
  }

  // As a network that is gone: the transport breaks, without a word of Socket.IO.
  drop() {
    this.socket.io.engine?.close();
  }
}

const clients = task.clients.map((part, index) => new Client(part, index));

createInterface({ input: process.stdin }).on("line", (line) => {
  const [order, argument] = line.split(" ");
  if (order === "loud") loud = true;
  if (order === "quiet") loud = false;
  if (order === "drop") for (const client of clients) setTimeout(() => client.drop(), Math.random() * Number(argument));
}).on("close", () => process.exit(0));
