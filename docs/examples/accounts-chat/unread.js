const UNREAD_DELAY_MS = 500;
let isLoadingUnread = false;
let loadUnreadAgain = false;

// The user has read a chat: here, or on another device.
function hasRead(room, lastRead, unread) {
  const chat = chats.get(room);
  if (!chat) return;
  chat.reads += 1;
  chat.unread = unread;
  chat.readSeq = Math.max(chat.readSeq, lastRead);
  renderChats();
}

// Asks for the unread messages of all chats. One request serves all calls of a moment.
async function loadUnread() {
  loadUnreadAgain = true;
  if (isLoadingUnread) return;
  isLoadingUnread = true;
  while (loadUnreadAgain) {
    await sleep(UNREAD_DELAY_MS);
    loadUnreadAgain = false;
    const readsBefore = new Map([...chats].map(([room, { reads }]) => [room, reads]));
    const { items } = await api("GET", "/me/unread").catch(() => ({}));
    for (const { room_id, unread } of items ?? []) {
      // An answer may be older than a position that has come meanwhile.
      const chat = chats.get(room_id);
      if (chat && chat.reads === readsBefore.get(room_id)) chat.unread = unread;
    }
    renderChats();
  }
  isLoadingUnread = false;
}

const TYPING_SHOWN_MS = 6_000;

// The open chat is read once its end is visible.
function markRead() {
  const { scrollHeight, scrollTop, clientHeight } = element("scroll");
  const chat = shown;
  const isVisible = document.visibilityState === "visible" && scrollHeight - scrollTop - clientHeight < 5;
  if (!chat?.joined || !chat.hasHistory || chat.thread || !isVisible || chat.at.seq <= chat.readSeq) return;
  const { seq } = chat.at;
  chat.readSeq = seq;
  socket.timeout(ANSWER_TIMEOUT_MS).emit("read", { room_id: chat.info.room_id, seq }, (error, answer) => {
    if (error) chat.readSeq = 0;
    else if (answer.ok) hasRead(chat.info.room_id, answer.last_read_seq, answer.unread);
  });
}

element("scroll").addEventListener("scroll", markRead);
document.addEventListener("visibilitychange", markRead);

function showTyping(room, user, username, isTyping) {
  const chat = chats.get(room);
  if (!chat) return;
  clearTimeout(chat.typing.get(user)?.timer);
  chat.typing.delete(user);
  if (isTyping) {
    const timer = setTimeout(() => showTyping(room, user, username, false), TYPING_SHOWN_MS);
    chat.typing.set(user, { timer, name: names.get(user) ?? username });
  }
  if (chat === shown) renderTyping();
}

function renderTyping() {
  const typing = [...(shown?.typing.values() ?? [])].map(({ name }) => name);
  element("typing").textContent = typing.length > 0 ? `Typing: ${typing.join(", ")}` : "";
}

let typingSentAt = 0;
element("send").elements.content.addEventListener("input", () => {
  if (!shown?.joined || Date.now() - typingSentAt < TYPING_SHOWN_MS / 2) return;
  typingSentAt = Date.now();
  socket.emit("typing", { room_id: shown.info.room_id, is_typing: true }, () => {});
});

function setPresent(room, change) {
  const chat = chats.get(room);
  if (!chat) return;
  change(chat.present);
  if (chat === shown) renderPresent();
}
