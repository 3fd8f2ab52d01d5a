let socket = null;

function enter(stored) {
  session = stored;
  scheduleRefresh();
  names.set(session.user.id, session.user.display_name);
  element("enter").hidden = true;
  element("app").hidden = false;
  element("logout").hidden = false;
  element("account").textContent = session.user.display_name;
  showProblem("");
  connect();
  element("query").focus();
}

// Forgets the session in this tab.
function leave() {
  clearTimeout(refreshTimer);
  socket?.disconnect();
  socket = session = null;
  chats.clear();
  names.clear();
  outbox.length = 0;
  element("found").replaceChildren();
  element("found-note").hidden = true;
  element("search").reset();
  element("send").reset();
  showChat(null);
  renderChats();
}

function connect() {
  // WebSocket only: long-polling behind a load balancer requires sticky sessions. `auth` is called
  // for every connection, so that a reconnect has a token that is valid then.
  let used;
  const auth = async (send) => {
    used = await validTokens().catch(() => session);
    if (used) send({ token: used.access_token });
  };
  const connection = (socket = io(node, { transports: ["websocket"], forceNew: true, auth }));
  let exception = null; // the reason that the node gives before it ends a connection

  // The events of a connection that was replaced have no effect any more.
  const on = (event, handle) => connection.on(event, (...values) => { if (connection === socket) handle(...values); });

  // Each connection, the first one and every reconnect, starts without rooms.
  on("connect", () => {
    exception = null;
    clearConnectionProblem();
    for (const chat of chats.values()) join(chat);
    loadChats().then(loadUnread);
  });
  on("exception", (refusal) => {
    exception = refusal;
    if (refusal.code === "unauthorized") endSession(session.id, SESSION_ENDED);
    else if (refusal.code !== "token_expired") showProblem(`${refusal.code}: ${refusal.error}`);
  });
  on("session_ended", ({ session_id }) => {
    if (session_id === session.id) endSession(session_id, SESSION_ENDED);
  });
  on("disconnect", (reason) => {
    for (const chat of chats.values()) chat.joined = false;
    renderPresent();
    if (connection.active) showConnectionProblem("The connection is lost.");
    else if (exception?.code === "token_expired") renew();
    else if (reason === "io server disconnect") showProblem(`The node ended the connection: ${exception?.error ?? "no reason given"}. Reload the page to connect again.`);
  });
  // Refused with "token_expired: …" or "unauthorized: …", or no connection at all.
  on("connect_error", (error) => {
    if (!connection.active && /^(token_expired|unauthorized)\b/.test(error.message)) renew();
    else if (!connection.active) showProblem(`Refused: ${error.message}`);
    else showConnectionProblem(`No connection to ${node}.`);
  });
  // A refused token is replaced. If the session has ended, the refresh is refused and shows the form.
  function renew() {
    refresh(used).then(() => { if (connection === socket) connection.connect(); }, (refusal) => showProblem(refusal.message));
  }

  for (const event of ["chat_created", "chat_updated", "member_added", "member_removed"]) {
    on(event, ({ room_id }) => { if (room_id.startsWith("user:")) loadChats(); });
  }
  on("message", (message) => receive(message));
  for (const event of ["message_edited", "message_deleted", "reactions_changed", "message_pinned", "message_unpinned"]) {
    on(event, (change) => receiveChange(event, change));
  }
  on("user_typing", ({ room_id, user_id, username, is_typing }) => showTyping(room_id, user_id, username, is_typing));
  on("read", ({ target_room_id, last_read_seq, unread }) => hasRead(target_room_id, last_read_seq, unread));
  on("room_reset", ({ room_id, seq, epoch }) => {
    const chat = chats.get(room_id);
    if (!chat) return;
    chat.at = { epoch, seq };
    readHistory(chat);
  });
  on("room_users", ({ room_id, users }) => setPresent(room_id, (present) => { present.clear(); users.forEach((user) => present.add(user)); }));
  on("user_joined", ({ room_id, user_id, username }) => {
    if (!names.has(user_id)) names.set(user_id, username);
    setPresent(room_id, (present) => present.add(user_id));
  });
  on("user_left", ({ room_id, user_id }) => setPresent(room_id, (present) => present.delete(user_id)));
}
