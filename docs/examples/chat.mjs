// A chat in a terminal: node chat.mjs NAME [ROOM] [URL]
// With a token (AUTH_MODE=jwt): HUBBUB_TOKEN=… node chat.mjs - [ROOM] [URL]
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { io } from "socket.io-client";

const [name, room = "lobby", url = "http://127.0.0.1:8080"] = process.argv.slice(2);
const token = process.env.HUBBUB_TOKEN;
if (!name) {
  console.error("usage: node chat.mjs NAME [ROOM] [URL]");
  console.error("       HUBBUB_TOKEN=… node chat.mjs - [ROOM] [URL]");
  process.exit(2);
}
if (name === "-" && !token) {
  console.error("HUBBUB_TOKEN is not set: put a token into it, or give a name instead of -");
  process.exit(2);
}

const ANSWER_TIMEOUT_MS = 10_000;
const socket = io(url, { transports: ["websocket"], ...(token && { auth: { token } }) });
const note = (text) => console.log(`* ${text}`);

let at = null; // position of the last message received, { epoch, seq }: enough to resume
let joined = false;
let sending = false;
let leaving = false; // standard input has ended
let trouble = ""; // the last reason why there is no connection, so that each one is shown once
const outbox = []; // messages without an acknowledgement, oldest first

// Each connection, the first one and every reconnect, starts without identity and rooms:
// authenticate, then join and continue from `at`.
socket.on("connect", () => authenticate(socket.id));

function authenticate(connection) {
  const payload = () => (token ? { token } : { user_id: name });
  request(connection, "authenticate", payload, () => join(connection));
}

function join(connection) {
  const payload = () => ({
    room_id: room,
    ...(at ? { since_seq: at.seq, epoch: at.epoch } : { limit: 20 }),
  });
  // Handled in the callback, not after an await: the replayed messages may follow immediately.
  request(connection, "join", payload, (answer) => {
    if (answer.gap) note("messages may be missing: the log no longer reaches back to the last one");
    // After a resume `at.seq` stays valid, in the answer's epoch. Otherwise the replay starts here.
    at = { epoch: answer.epoch, seq: answer.recovered ? at.seq : answer.seq - answer.replayed };
    note(`in ${room} with ${answer.total} user(s), ${answer.replayed} message(s) follow`);
    joined = true;
    trouble = "";
    flush();
  });
}

// Repeats a request until it is answered or the connection is replaced. Ends the program at a refusal
// that retrying can't fix.
function request(connection, event, payload, done) {
  if (socket.id !== connection) return;
  const retry = (wait) => setTimeout(() => request(connection, event, payload, done), wait);
  socket.timeout(ANSWER_TIMEOUT_MS).emit(event, payload(), (error, answer) => {
    if (socket.id !== connection) return;
    if (error) retry(0);
    else if (answer.ok) done(answer);
    else if (answer.retry_after_ms) retry(answer.retry_after_ms);
    else if (answer.code === "unauthorized" && !token) exit(`${url} needs a token: set HUBBUB_TOKEN`);
    else exit(`${event} was refused: ${answer.code}: ${answer.error}`);
  });
}

socket.on("message", (message) => {
  if (message.room_id !== room) return;
  // A duplicate: happens only after a join that was sent twice.
  if (at && message.epoch === at.epoch && message.seq <= at.seq) return;
  at = { epoch: message.epoch, seq: message.seq };
  console.log(`${message.seq} ${message.username}: ${message.content}`);
});

// The log was lost beyond this point. The numbers continue after `seq`, and may repeat earlier ones.
socket.on("room_reset", ({ room_id, seq, epoch, lost_from }) => {
  if (room_id !== room) return;
  if (lost_from === undefined) note("messages may be missing");
  else note(`messages from ${lost_from} on may be lost`);
  at = { epoch, seq };
});

// Sends in order, one at a time. A message without an answer is sent again with the same
// client_msg_id, so it takes effect once.
async function flush() {
  if (sending) return;
  sending = true;
  while (joined && outbox.length > 0) {
    const answer = await socket
      .timeout(ANSWER_TIMEOUT_MS)
      .emitWithAck("message", outbox[0])
      .catch(() => ({ ok: false, retry_after_ms: 100 })); // no answer: lost, or only late
    if (answer.ok) outbox.shift();
    else if (answer.retry_after_ms) await sleep(answer.retry_after_ms);
    else note(`not sent: ${outbox.shift().content}: ${answer.code}: ${answer.error}`);
  }
  sending = false;
  if (leaving && outbox.length === 0) socket.disconnect();
}

socket.on("user_joined", ({ username }) => note(`${username} joined`));
socket.on("user_left", ({ username }) => note(`${username} left`));
// The node is shutting down. It closes the connection at that time, and the client reconnects on
// its own, to another node if there is one.
socket.on("going_away", ({ reconnect_in_ms }) => {
  note(`moving to another node in ${reconnect_in_ms} ms`);
});
// Refusals of requests without a callback, and the reason before the server ends the session
// because the identity is no longer valid.
socket.on("exception", ({ code, error }) => note(`refused: ${code}: ${error}`));

socket.on("disconnect", (reason) => {
  joined = false;
  if (socket.active) note(`connection lost (${reason}), reconnecting`);
  else if (leaving) process.exit(0);
  else exit(`the server ended the session (${reason})`); // identity: only a new token helps
});
socket.on("connect_error", (error) => {
  if (!socket.active) exit(`refused: ${error.message}`); // "unauthorized: …" or "token_expired: …"
  // Not reachable, or refused for now: the client tries again by itself.
  const text = `no connection to ${url}: ${error.description?.message ?? error.message}`;
  if (text !== trouble) note(`${text}; trying again`);
  trouble = text;
});

function exit(text) {
  note(text);
  process.exit(1);
}

const input = createInterface({ input: process.stdin });
input.on("line", (content) => {
  if (content === "") return;
  outbox.push({ room_id: room, content, client_msg_id: randomUUID() });
  flush();
});
input.on("close", () => {
  leaving = true;
  flush();
});
