const chats = new Map(); // by room id
const names = new Map(); // by user id, as people write them
let shown = null; // the chat that is open
let isLoading = false;
let loadAgain = false;

const chatName = ({ info }) => info.name ?? info.peer?.display_name ?? (info.kind === "direct" ? "Notes to myself" : "A group");

// Adds a chat, or takes over what has changed of it.
function addChat(info) {
  let chat = chats.get(info.room_id);
  if (!chat) {
    const { content = "", timestamp = info.created_at } = info.last_message ?? {};
    // `lines` is what the page shows, in its order: messages by their ids, and notes.
    chat = { at: null, joined: false, room: fold.room(), isListed: false, hasHistory: false, lines: [], ids: new Set(), thread: null };
    Object.assign(chat, { preview: content, activeAt: timestamp, present: new Set(), typing: new Map() });
    Object.assign(chat, { unread: 0, readSeq: 0, reads: 0 });
    chats.set(info.room_id, chat);
  }
  chat.info = info;
  if (info.peer) names.set(info.peer.id, info.peer.display_name);
  return chat;
}

// Loads the list of chats, and enters the rooms of all of them: so the page receives their messages.
async function loadChats() {
  loadAgain = true;
  if (isLoading) return;
  isLoading = true;
  const loader = socket;
  while (loadAgain && socket === loader) {
    loadAgain = false;
    try {
      const { items, has_more } = await api("GET", `/chats?limit=${CHATS_LISTED}`);
      if (socket !== loader) break;
      const listed = new Set(items.map(addChat));
      for (const [room, chat] of chats) {
        // A long list has more chats than its first page.
        if (!listed.has(chat) && !has_more && chat !== shown) chats.delete(room);
      }
    } catch (refusal) {
      if (socket !== loader) break;
      if (refusal.status >= 400 && refusal.status < 500 && refusal.status !== 429) {
        showProblem(refusal.message);
        break;
      }
      loadAgain = true;
      await sleep(RETRY_MS);
      continue;
    }
    renderChats();
    for (const chat of chats.values()) join(chat);
  }
  isLoading = false;
  // Asked for by another session meanwhile.
  if (socket && socket !== loader) loadChats();
}

// Enters a chat's room, later from the last position on. Where events are missing, and at first, the
// history has the messages.
function join(chat) {
  const connection = socket.id;
  const isCurrent = () => socket?.id === connection && chats.has(chat.info.room_id);
  if (!connection || chat.joined || chat.joining === connection) return;
  chat.joining = connection;
  const again = (wait) => setTimeout(() => {
    chat.joining = null;
    if (isCurrent()) join(chat);
  }, wait);
  const { epoch, seq } = chat.at ?? {};
  const from = chat.at ? { since_seq: seq, epoch, replay_limit: MESSAGES_LISTED } : {};
  // Handled in the callback, not after an await: the replayed messages may follow immediately.
  socket.timeout(ANSWER_TIMEOUT_MS).emit("join", { room_id: chat.info.room_id, ...from }, (error, answer) => {
    if (!isCurrent()) return;
    if (error) return again(0);
    if (answer.retry_after_ms) return again(answer.retry_after_ms);
    chat.joining = null;
    if (!answer.ok) return addLine(chat, { note: `This chat can't be entered: ${answer.error}` });
    chat.at = { epoch: answer.epoch, seq: answer.recovered ? chat.at.seq : answer.seq - answer.replayed };
    chat.joined = true;
    if (!answer.recovered || !chat.hasHistory) readHistory(chat);
    if (chat === shown) renderPresent();
    flush();
    markRead();
  });
}
