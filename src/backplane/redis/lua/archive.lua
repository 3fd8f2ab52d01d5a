-- Shared by the scripts about logs with an archive behind them; requires log.lua.

-- The history that a room's numbering belongs to, as its field r names it. The name of the archive
-- is a part of it: so a room that was used without the archive, or with another one, is noticed.
local function archived_history(ctx) return replid(ctx) .. ' ' .. ctx.archive end

-- The numbering of a room with an archive behind it: the epoch, the last seq, the watermark, and
-- whether the room has forms.
-- Returns nil if the room must be restored from the archive first: it isn't known, its end may be
-- lost, it has never been archived, or the archive has other entries.
local function archived_numbering(ctx, numbering)
  local fields = call('HMGET', numbering, 'e', 's', 'r', 'a', 'd', 'f')
  local epoch, seq, history, watermark, shared, has_forms = unpack(fields)
  if not epoch or history ~= archived_history(ctx) or not watermark or shared then return nil end
  return epoch, tonumber(seq), tonumber(watermark), has_forms
end

-- The error for a room that must be restored from the archive first. Nodes recognise it by the
-- first word.
local function unrestored_error()
  return redis.error_reply('UNRESTORED the room must be restored from the archive first')
end

-- The numbering of a room of the call's partition, with an archive or without one: the epoch, the
-- last seq, with an archive the watermark (else nil), and whether the room has forms. Returns nil if
-- the room must be restored first.
local function numbering_of(ctx, room)
  local numbering = key(ctx.tag, NUMBERING, room)
  if ctx.archive ~= '' then return archived_numbering(ctx, numbering) end
  local epoch, seq, _, has_forms = open_numbering(ctx, ctx.tag, room, numbering)
  return epoch, seq, nil, has_forms
end

-- Keeps the log and the numbering of a room with entries above its watermark.
local function keep_unarchived(ctx, tag, room, has_forms)
  call('PERSIST', key(tag, NUMBERING, room))
  call('PERSIST', key(tag, LOG, room))
  if has_forms then
    call('PERSIST', key(tag, FORMS, room))
    call('PERSIST', key(tag, TARGETS, room))
  end
  call('ZADD', key(tag, UNARCHIVED, ''), int(ctx.now), room)
end

-- Sets how long the log and the numbering of a room are kept whose entries are all archived.
local function release_archived(ctx, tag, room, permanent, history_ms, has_forms)
  call('ZREM', key(tag, UNARCHIVED, ''), room)
  call('PEXPIRE', key(tag, LOG, room), history_ms)
  if has_forms then
    call('PEXPIRE', key(tag, FORMS, room), history_ms)
    call('PEXPIRE', key(tag, TARGETS, room), history_ms)
  end
  renew_numbering(ctx, tag, room, permanent)
end
