// The basic functions of hubbub as they are usually written with Socket.IO: messages are neither
// ordered nor stored, repeats are not detected, and nothing is validated. Where hubbub does more
// (the list of a room's users), this server does less.

export function chat(io) {
  // Does not keep the handshake's request, as Socket.IO's documentation advises to save memory.
  io.engine?.on?.("connection", (raw) => {
    raw.request = null;
  });
  io.on("connection", (socket) => {
    socket.on("authenticate", ({ user_id, username }, ack) => {
      socket.data.user_id = user_id;
      socket.data.username = username;
      ack?.({ ok: true, user_id, username });
      socket.emit("authenticated", { user_id, username });
    });
    socket.on("join", ({ room_id }, ack) => {
      const { user_id, username } = socket.data;
      socket.join(room_id);
      const total = io.of("/").adapter.rooms.get(room_id)?.size ?? 0;
      ack?.({ ok: true, room_id, total });
      socket.emit("room_users", { room_id, users: [], total });
      socket.to(room_id).emit("user_joined", { room_id, user_id, username });
    });
    socket.on("message", ({ room_id, content, type = "text", attachment_urls = [] }, ack) => {
      const { user_id, username } = socket.data;
      const id = crypto.randomUUID();
      const timestamp = new Date().toISOString();
      io.to(room_id).emit("message", { id, room_id, user_id, username, content, type, attachment_urls, timestamp });
      ack?.({ ok: true, id, room_id, timestamp });
    });
  });
}
