// The messages of chats, folded from events and histories: see fold.js.

// Moves the position of a chat, and returns the chat: undefined if it is not one of the page.
function advance({ room_id, epoch, seq }) {
  const chat = chats.get(room_id);
  if (chat) chat.at = { epoch, seq };
  return chat;
}

function receive(message) {
  const chat = advance(message);
  if (!chat) return;
  const entry = fold.apply(chat.room, "message", message);
  noteSender(message);
  if (chat.ids.has(message.id)) {
    // A replay repeats messages after a gap.
    renderEntry(chat, entry);
    return;
  }
  addMessage(chat, chat.room.entries.get(message.id));
  if (message.user_id !== session.user.id && chat !== shown) loadUnread();
  markRead();
}

function receiveChange(name, change) {
  const chat = advance(change);
  if (!chat) return;
  const entry = fold.apply(chat.room, name, change);
  if (!entry) return;
  // A message that was sent and deleted during an absence: its deletion is replayed in its place.
  const isInPlace = name === "message_deleted" && change.seq === change.target_seq;
  if (isInPlace && !chat.ids.has(entry.id)) addMessage(chat, entry);
  else renderEntry(chat, entry);
  if (entry.thread) renderEntry(chat, chat.room.entries.get(entry.thread));
  if (chat.lastId === entry.id) showPreview(chat, entry);
  if (name === "message_deleted") loadUnread();
}

// Begins again with the newest forms of the last messages: where events are missing, the page doesn't know
// what has become of older messages. Events that arrive meanwhile are folded into the same room, and shown
// with the history.
async function readHistory(chat) {
  const room = fold.room();
  Object.assign(chat, { room, ids: new Set(), isListed: false, hasHistory: false });
  const isCurrent = () => chat.room === room && chat.joined && chats.get(chat.info.room_id) === chat;
  let before; // the next page ends here
  let missing = MESSAGES_LISTED;
  while (missing > 0) {
    const page = before ? { before_seq: before } : {};
    const answer = await socket.timeout(ANSWER_TIMEOUT_MS)
      .emitWithAck("history", { room_id: chat.info.room_id, limit: missing, ...page })
      .catch(() => ({ ok: false }));
    if (!isCurrent()) return; // the next join begins again
    if (answer.ok) {
      for (const message of answer.messages) {
        fold.apply(room, "message", message);
        noteSender(message);
      }
      // A page has fewer messages than asked for where changes are between them.
      missing -= answer.messages.length;
      before = answer.has_more ? (answer.next_seq ?? answer.messages[0]?.seq) : null;
      if (!before) break;
    } else {
      showConnectionProblem("The earlier messages of a chat can't be read.");
      listMessages(chat, 0);
      await sleep(answer.retry_after_ms ?? RETRY_MS);
      if (!isCurrent()) return;
    }
  }
  clearConnectionProblem();
  chat.hasHistory = true;
  listMessages(chat, before ?? 0);
  markRead();
}

// The lines of all messages from a number on. A change of an older message does not show the message.
function listMessages(chat, firstSeq) {
  const isListed = ({ seq, message, deleted }) => seq >= firstSeq && (message || deleted);
  const entries = fold.sorted(chat.room).filter(isListed);
  chat.isListed = true;
  chat.ids = new Set(entries.map(({ id }) => id));
  chat.lines = [...entries.map(({ id }) => ({ id })), ...chat.lines.filter(({ note }) => note)];
  if (entries.length > 0) showPreview(chat, entries.at(-1));
  if (chat === shown) renderLog();
}

function addMessage(chat, entry) {
  if (!chat.isListed) return;
  chat.ids.add(entry.id);
  addLine(chat, { id: entry.id });
  if (entry.thread) renderEntry(chat, chat.room.entries.get(entry.thread));
  showPreview(chat, entry);
}

// The list of chats shows the last message of each.
function showPreview(chat, entry) {
  chat.lastId = entry.id;
  chat.preview = entry.message?.content ?? "This message was deleted.";
  chat.activeAt = entry.at ?? chat.activeAt;
  renderChats();
}

// Others' names, and own messages that are in the room.
function noteSender({ user_id, username, client_msg_id }) {
  if (username && !names.has(user_id)) names.set(user_id, username);
  const sent = outbox.find((message) => message.client_msg_id === client_msg_id);
  if (user_id !== session.user.id || !sent) return;
  sent.isShown = true;
  renderPending();
}
