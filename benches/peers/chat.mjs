// The basics of hubbub's contract as one writes them with Socket.IO: nobody's messages are ordered, kept or recognised
// when they come twice, and nothing is checked. Where hubbub does more (the list of who is in a room), this does less.

export function chat(io) {
  // What Socket.IO's documentation advises to save memory: the request of the handshake is not kept.
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
