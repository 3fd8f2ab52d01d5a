function renderChats() {
  const items = [];
  const byActivity = (one, other) => other.activeAt.localeCompare(one.activeAt);
  for (const chat of [...chats.values()].sort(byActivity)) {
    chat.item ??= chatItem(chat);
    const [name, preview] = chat.item.firstChild.children;
    name.textContent = chatName(chat);
    preview.textContent = chat.preview || "No messages yet";
    if (chat.unread > 0) {
      const badge = make("span", "badge", `${chat.unread}`);
      badge.setAttribute("aria-label", `${chat.unread} unread`);
      name.append(badge);
    }
    chat.item.className = chat.unread > 0 ? "new" : "";
    chat.item.firstChild.setAttribute("aria-current", chat === shown);
    items.push(chat.item);
  }
  const list = element("chats");
  const isSame = items.length === list.children.length && items.every((item, index) => list.children[index] === item);
  if (!isSame) {
    // An element that is moved loses the focus.
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    list.replaceChildren(...items);
    focused?.focus();
  }
  element("no-chats").hidden = items.length > 0;
}

function chatItem(chat) {
  const button = make("button", "", make("span", "name"), make("span", "preview"));
  button.type = "button";
  button.addEventListener("click", () => showChat(chat));
  return make("li", "", button);
}

// Shows a chat, or none.
function showChat(chat) {
  shown = chat;
  element("app").classList.toggle("chat-open", chat !== null);
  element("peer").textContent = chat ? chatName(chat) : "No chat is open";
  element("leave-thread").hidden = !chat?.thread;
  endEdit();
  renderTyping();
  for (const control of element("send").elements) control.disabled = chat === null;
  renderPresent();
  renderPending();
  renderLog();
  if (!chat) return;
  renderChats();
  scrollToEnd();
  markRead();
  element("send").elements.content.focus();
  if (chat.info.kind === "group") loadMembers(chat);
}

async function loadMembers(chat) {
  const { items } = await api("GET", `/chats/${chat.info.id}/members?limit=200`).catch(() => ({ items: [] }));
  for (const { user_id, display_name } of items) names.set(user_id, display_name);
  renderPresent();
}

function renderPresent() {
  const present = [...(shown?.present ?? [])].filter((user) => user !== session?.user.id);
  const text = present.map((user) => names.get(user) ?? "somebody").join(", ");
  if (!shown) element("present").textContent = "Choose a chat, or find a user.";
  else if (!shown.joined) element("present").textContent = "Connecting…";
  else element("present").textContent = text ? `Here now: ${text}` : "Nobody else is here now.";
}

// Changes the log. Its end stays visible; a user that reads earlier messages stays there.
function changeLog(change) {
  const { scrollHeight, scrollTop, clientHeight } = element("scroll");
  const isAtEnd = scrollHeight - scrollTop - clientHeight < 100;
  change(element("log"));
  if (isAtEnd) scrollToEnd();
}

function renderLog() {
  const isShown = ({ note, id }) => {
    const entry = shown.room.entries.get(id);
    return note || (entry && inThread(shown, entry));
  };
  const lines = shown?.lines.filter(isShown) ?? [];
  changeLog((log) => log.replaceChildren(...lines.map(lineElement)));
}

function addLine(chat, line) {
  chat.lines.push(line);
  if (chat !== shown || (line.id && !inThread(chat, chat.room.entries.get(line.id)))) return;
  changeLog((log) => log.append(lineElement(line)));
}

// Shows an entry again in its place. The focus stays at the same button.
function renderEntry(chat, entry) {
  if (!entry || chat !== shown || !chat.ids.has(entry.id)) return;
  const old = [...element("log").children].find(({ dataset }) => dataset.id === entry.id);
  if (!old) return;
  const focused = [...old.querySelectorAll("button")].indexOf(document.activeElement);
  const made = lineElement(entry);
  changeLog(() => old.replaceWith(made));
  if (focused >= 0) (made.querySelectorAll("button")[focused] ?? element("scroll")).focus();
}

function lineElement({ note, id }) {
  if (note) return make("p", "note", note);
  const { message, author, at, deleted, pinned } = shown.room.entries.get(id);
  const isOwn = author === session.user.id;
  const head = make("div", "", make("span", "author", isOwn ? "You" : (names.get(author) ?? "Somebody")));
  if (at) head.append(timeElement(at));
  if (message?.edited_at) head.append(make("span", "mark", "(edited)"));
  if (pinned) head.append(make("span", "mark", "(pinned)"));
  const made = make("div", isOwn ? "message own" : "message", head);
  if (deleted) made.append(make("span", "deleted", "This message was deleted."));
  else made.append(message.content, actions(shown, shown.room.entries.get(id)));
  made.dataset.id = id;
  return made;
}

function timeElement(timestamp) {
  const at = new Date(timestamp);
  const time = make("time", "time", at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = timestamp;
  time.title = at.toLocaleString();
  return time;
}

function scrollToEnd() {
  element("scroll").scrollTop = element("scroll").scrollHeight;
}

element("back").addEventListener("click", () => {
  const button = shown?.item?.firstChild;
  showChat(null);
  renderChats();
  (button ?? element("query")).focus();
});
