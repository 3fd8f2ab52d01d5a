-- Shared by the scripts that know how far rooms are archived; requires log.lua.

-- Keeps the log and the numbering of a room with entries above its watermark.
local function keep_unarchived(ctx, tag, room)
  call('PERSIST', key(tag, NUMBERING, room))
  call('PERSIST', key(tag, LOG, room))
  call('ZADD', key(tag, UNARCHIVED, ''), int(ctx.now), room)
end

-- Sets how long the log and the numbering of a room are kept whose entries are all archived.
local function release_archived(ctx, tag, room, permanent, history_ms)
  call('ZREM', key(tag, UNARCHIVED, ''), room)
  call('PEXPIRE', key(tag, LOG, room), history_ms)
  renew_numbering(ctx, tag, room, permanent)
end
