const outbox = []; // messages without an acknowledgement, oldest first
let isSending = false;

function newId() {
  // Not crypto.randomUUID, which exists only in secure contexts.
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("-");
}

element("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = event.target.elements.content.value;
  event.target.reset();
  socket?.emit("typing", { room_id: shown.info.room_id, is_typing: false }, () => {});
  typingSentAt = 0;
  const thread_id = shown.thread ?? undefined;
  outbox.push({ room_id: shown.info.room_id, content, thread_id, client_msg_id: newId(), isShown: false });
  renderPending();
  flush();
});

// Sends in the order of each chat, one at a time. A message without an answer is sent again with the same
// client_msg_id, so it takes effect once.
async function flush() {
  if (isSending) return;
  isSending = true;
  while (socket?.connected) {
    const message = outbox.find(({ room_id }) => chats.get(room_id)?.joined);
    if (!message) break;
    const chat = chats.get(message.room_id);
    const { room_id, content, client_msg_id, thread_id } = message;
    const answer = await socket
      .timeout(ANSWER_TIMEOUT_MS)
      .emitWithAck("message", { room_id, content, client_msg_id, thread_id })
      .catch(() => ({ ok: false, retry_after_ms: 100 }));
    if (!outbox.includes(message)) continue; // the session has ended meanwhile
    if (!answer.ok && answer.retry_after_ms) {
      await sleep(answer.retry_after_ms);
      continue;
    }
    outbox.splice(outbox.indexOf(message), 1);
    if (!answer.ok) addLine(chat, { note: `Not sent: “${content}”: ${answer.error}` });
    renderPending();
  }
  isSending = false;
}

// Messages that are not in the room yet.
function renderPending() {
  const pending = outbox.filter(({ room_id, isShown }) => room_id === shown?.info.room_id && !isShown);
  element("pending").replaceChildren(...pending.map(({ content }) => make("div", "message own", make("div", "time", "Sending…"), content)));
  scrollToEnd();
}
