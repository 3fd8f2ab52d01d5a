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
  process.exit(2);
}

const PATIENCE = 10_000; // how long an answer may take, in milliseconds
const socket = io(url, { transports: ["websocket"], ...(token && { auth: { token } }) });
const note = (text) => console.log(`* ${text}`);

let at = null; // the last message seen, { epoch, seq }: all that a resume needs
let joined = false;
let sending = false;
let leaving = false;
const outbox = []; // what is not acknowledged yet, oldest first

// Every connection begins anew, the first one and each that the client makes by itself: say who we are, then go on from `at`.
socket.on("connect", () => authenticate(socket.id));

function authenticate(connection) {
  const payload = () => (token ? { token } : { user_id: name });
  ask(connection, "authenticate", payload, () => join(connection));
}

function join(connection) {
  const payload = () => ({ room_id: room, ...(at ? { since_seq: at.seq, epoch: at.epoch } : { limit: 20 }) });
  // In the callback, not after an await: replayed messages may come right behind this answer.
  ask(connection, "join", payload, (answer) => {
    if (answer.gap) note("messages may be missing here: the log no longer reaches back to the last one seen");
    // After a resume `at` stands, in the numbering of now. Else it is where the replay begins.
    at = { epoch: answer.epoch, seq: answer.recovered ? at.seq : answer.seq - answer.replayed };
    note(`in ${room} with ${answer.total} user(s), ${answer.replayed} message(s) follow`);
    joined = true;
    flush();
  });
}

// Asks until it is answered or the connection is another one. What waiting can't mend is reported.
function ask(connection, event, payload, done) {
  if (socket.id !== connection) return;
  const again = (wait) => setTimeout(() => ask(connection, event, payload, done), wait);
  socket.timeout(PATIENCE).emit(event, payload(), (error, answer) => {
    if (socket.id !== connection) return;
    if (error) again(0);
    else if (answer.ok) done(answer);
    else if (answer.retry_after_ms) again(answer.retry_after_ms);
    else note(`${event} was refused: ${answer.code}: ${answer.error}`);
  });
}

socket.on("message", (message) => {
  if (message.room_id !== room) return;
  if (at && message.epoch === at.epoch && message.seq <= at.seq) return; // only after a join that was asked twice
  at = { epoch: message.epoch, seq: message.seq };
  console.log(`${message.seq} ${message.username}: ${message.content}`);
});

// The log was lost past this point. Numbers go on after `seq`, and may repeat some that were seen before.
socket.on("room_reset", ({ room_id, seq, epoch, lost_from }) => {
  if (room_id !== room) return;
  note(lost_from === undefined ? "messages may be missing here" : `messages from ${lost_from} on may be lost`);
  at = { epoch, seq };
});

// Sends in order, one at a time. A send whose answer never came is repeated with the same client_msg_id, so it takes effect once.
async function flush() {
  if (sending) return;
  sending = true;
  while (joined && outbox.length > 0) {
    const answer = await socket
      .timeout(PATIENCE)
      .emitWithAck("message", outbox[0])
      .catch(() => ({ ok: false, retry_after_ms: 100 })); // no answer: lost, or only late
    if (answer.ok) outbox.shift();
    else if (answer.retry_after_ms) await sleep(answer.retry_after_ms);
    else note(`not sent: ${outbox.shift().content}: ${answer.code}: ${answer.error}`);
  }
  sending = false;
  if (leaving && outbox.length === 0) socket.disconnect();
}

socket.on("user_joined", ({ username }) => note(`${username} came`));
socket.on("user_left", ({ username }) => note(`${username} left`));
// This node stops: it closes the connection then, and the client comes back by itself, to another node if there is one.
socket.on("going_away", ({ reconnect_in_ms }) => note(`moving to another node in ${reconnect_in_ms} ms`));
// Refusals of requests without a callback, and the last word before the server ends a session for its identity.
socket.on("exception", ({ code, error }) => note(`refused: ${code}: ${error}`));

socket.on("disconnect", (reason) => {
  joined = false;
  if (socket.active) note(`connection lost (${reason}), coming back`);
  else if (leaving) process.exit(0);
  else end(`the server ended the session (${reason})`); // identity: only a new token helps
});
socket.on("connect_error", (error) => {
  if (!socket.active) end(`refused: ${error.message}`); // "unauthorized: …" or "token_expired: …"
});

function end(text) {
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
