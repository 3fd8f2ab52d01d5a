// Folds the events of a room into the newest form of each message. A plain script: it defines `fold`.
//
// Each kind of change has its own number, and the larger number wins, so that events may come twice:
//   content    the larger `version` (a message without one has its own `seq`)
//   reactions  the larger `seq` of reactions_changed (`reactions_seq` in history)
//   pin        the larger `seq` of message_pinned and message_unpinned (`pinned_seq` in history)
//   deletion   final: neither an older nor a newer event brings content back
// After `gap` or `room_reset` events are missing: read the history again, and start with fold.room().
const fold = {
  room: () => ({ entries: new Map() }),

  // Applies an event, and returns the entry that it changed, or null.
  apply(room, name, event) {
    switch (name) {
      case "message":
        return fold.content(room, event);
      case "message_edited":
        return fold.content(room, { ...event.message, version: event.message.version ?? event.seq });
      case "message_deleted":
        return fold.deletion(room, event);
      case "reactions_changed": {
        const entry = fold.entry(room, event.id, event.target_seq);
        return fold.reactions(entry, event.reactions, event.seq) ? entry : null;
      }
      case "message_pinned":
      case "message_unpinned": {
        const entry = fold.entry(room, event.id, event.target_seq);
        return fold.pin(entry, name === "message_pinned", event.seq) ? entry : null;
      }
      default:
        return null;
    }
  },

  // An event may come before the message itself: then `message` is null for now.
  entry(room, id, seq) {
    let entry = room.entries.get(id);
    if (!entry) {
      entry = { id, seq, author: null, thread: null, at: null, version: 0, message: null, deleted: false };
      Object.assign(entry, { reactions: [], reactionsSeq: 0, pinned: false, pinSeq: 0 });
      room.entries.set(id, entry);
    }
    return entry;
  },

  // What stays after a deletion, too: the author, the root of the thread, and when the message was sent.
  describe(entry, { user_id, thread_id, timestamp }) {
    entry.author ??= user_id ?? null;
    entry.thread ??= thread_id ?? null;
    entry.at ??= timestamp ?? null;
  },

  content(room, message) {
    if (message.deleted) return fold.deletion(room, { ...message, target_seq: message.seq });
    const entry = fold.entry(room, message.id, message.seq);
    fold.describe(entry, message);
    const hasReactions = fold.reactions(entry, message.reactions ?? [], message.reactions_seq ?? 0);
    const hasPin = fold.pin(entry, message.pinned ?? false, message.pinned_seq ?? 0);
    const version = message.version ?? message.seq;
    if (entry.deleted || version <= entry.version) return hasReactions || hasPin ? entry : null;
    entry.version = version;
    entry.message = message;
    return entry;
  },

  // In the place of a message that nobody receives any more, the event has the message's own number and time.
  deletion(room, { id, target_seq, seq, user_id, thread_id, timestamp }) {
    const entry = fold.entry(room, id, target_seq);
    fold.describe(entry, { user_id, thread_id, timestamp: seq === target_seq ? timestamp : undefined });
    if (entry.deleted) return null;
    Object.assign(entry, { version: 0, message: null, deleted: true, reactions: [], reactionsSeq: 0, pinned: false, pinSeq: 0 });
    return entry;
  },

  reactions(entry, reactions, seq) {
    if (entry.deleted || seq <= entry.reactionsSeq) return false;
    entry.reactionsSeq = seq;
    entry.reactions = reactions;
    return true;
  },

  pin(entry, pinned, seq) {
    if (entry.deleted || seq <= entry.pinSeq) return false;
    entry.pinSeq = seq;
    entry.pinned = pinned;
    return true;
  },

  // The live replies to a message. They follow it in the room, so after a message without a gap all are known.
  replies: (room, id) => fold.sorted(room).filter(({ message }) => message?.thread_id === id),

  sorted: (room) => [...room.entries.values()].sort((one, other) => one.seq - other.seq),
};
