// What the user does to messages: edits, deletions, reactions, pins, threads.

const EMOJIS = ["👍", "❤️", "😂"];
let editing = null; // {chat, id, version}

// Sends a change once, and shows a refusal.
async function change(chat, event, body) {
  const answer = await socket.timeout(ANSWER_TIMEOUT_MS)
    .emitWithAck(event, { room_id: chat.info.room_id, ...body })
    .catch(() => ({ ok: false, error: "No answer: try again." }));
  if (!answer.ok) showProblem(answer.error);
  return answer;
}

function startEdit(chat, entry) {
  editing = { chat, id: entry.id, version: entry.version };
  element("edit").hidden = false;
  element("edit").elements.content.value = entry.message.content;
  element("edit").elements.content.focus();
}

function endEdit() {
  editing = null;
  element("edit").hidden = true;
}

element("cancel-edit").addEventListener("click", () => {
  endEdit();
  element("send").elements.content.focus();
});

// A conflict shows the newest text, and the next attempt is based on it.
element("edit").addEventListener("submit", async (event) => {
  event.preventDefault();
  const edit = editing;
  const content = event.target.elements.content.value;
  const answer = await change(edit.chat, "edit_message", { id: edit.id, content, version: edit.version });
  if (answer.code === "conflict" && answer.message) {
    edit.version = answer.message.version;
    showProblem(`Changed elsewhere meanwhile. The text is now: “${answer.message.content}”. Save again to replace it.`);
  } else if (answer.ok && editing === edit) {
    endEdit();
    showProblem("");
    element("send").elements.content.focus();
  }
});

function showThread(chat, id) {
  chat.thread = id;
  showChat(chat);
}

element("leave-thread").addEventListener("click", () => showThread(shown, null));

const inThread = (chat, { id, thread }) => !chat.thread || id === chat.thread || thread === chat.thread;

function actions(chat, entry) {
  const act = (text, label, run, pressed) => {
    const button = make("button", "", text);
    button.type = "button";
    button.setAttribute("aria-label", label);
    if (pressed !== undefined) button.setAttribute("aria-pressed", pressed);
    button.addEventListener("click", run);
    return button;
  };
  const { id, message } = entry;
  const made = [];
  const shownEmojis = new Set([...entry.reactions.map(({ emoji }) => emoji), ...EMOJIS]);
  for (const emoji of shownEmojis) {
    const { count = 0, user_ids = [] } = entry.reactions.find((one) => one.emoji === emoji) ?? {};
    const isMine = user_ids.includes(session.user.id);
    const label = `React with ${emoji}, ${count} so far`;
    made.push(act(count > 0 ? `${emoji} ${count}` : emoji, label, () => change(chat, "react", { id, emoji, on: !isMine }), isMine));
  }
  if (!message.thread_id && !chat.thread) {
    const { length } = fold.replies(chat.room, id);
    made.push(act(length > 0 ? `Replies: ${length}` : "Reply", `Open the thread, replies: ${length}`, () => showThread(chat, id)));
  }
  const pin = entry.pinned ? "Unpin" : "Pin";
  made.push(act(pin, `${pin} this message`, () => change(chat, `${pin.toLowerCase()}_message`, { id })));
  if (message.user_id === session.user.id) {
    made.push(act("Edit", "Edit this message", () => startEdit(chat, entry)));
    made.push(act("Delete", "Delete this message", () => change(chat, "delete_message", { id })));
  }
  return make("div", "actions", ...made);
}
