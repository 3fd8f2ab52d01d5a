-- Shared by the scripts about a room's log. A room is given by the tag of its partition, because
-- append.lua serves rooms of several partitions in one call, and by its name in base64url.
--
-- m:<room>  hash, the room's numbering: e epoch, s last seq, r replid, 1 to 8 the previous epochs
--           (newest first, each as 'epoch seq' with the seq at which it ended), v version of the
--           membership, x the last renewal of the retention (see append.lua). Behind an archive
--           also: a watermark, y the ranges after it that the archive has (as 'first last first
--           last …'), d the last seq that log and archive share, once they differ; and r is
--           followed by the name of the archive. Also: f is 1 if the room ever had forms, or is
--           about to have one; q a seq behind which there is no reply to a message
-- h:<room>  stream, the log. Ids are seq-0. Fields: e epoch, t time, then the record under the
--           letter of the entry's kind: m message (r in entries of earlier releases), a change,
--           c pointer: a change of a message; other letters are kinds of later releases. The record
--           of a message is empty if its text was removed: it is archived, and has a form
-- f:<room>  hash: seq of a changed message → its newest form: the version, the time of the edit or
--           0, and the tail: '<seq> <epoch> <time> <letter> <bytes>', a line feed, so many bytes
--           of content, and the reactions. Letters: O original content, E edited, D deleted
-- t:<room>  sorted set: seqs of the messages in f:<room>, by the seq of their last pointer
-- x         sorted set: rooms of the partition whose logs have texts of deleted messages, by the
--           time at which these have to be removed; and rooms with a copy that has begun, each with a
--           colon behind it
-- z:<room>  stream: the beginning of a copy of the log without these texts (see scrub.lua)
-- a         sorted set: rooms of the partition with entries above their watermark, by the time
--           since which the oldest one may be waiting for the archive; and rooms that have diverged
--           from the archive
local NUMBERING, LOG, CHANGES, MEMBERS, UNARCHIVED = 'm:', 'h:', 'p:', 'u:', 'a'
local FORMS, TARGETS, SCRUBS, COPY = 'f:', 't:', 'x', 'z:'

-- The names that an append needs, in one call: the room's numbering, its log and its channel.
local function room_keys(tag, room)
  return tag .. NUMBERING .. room, tag .. LOG .. room, tag .. CHANNEL .. room
end

-- The name of a new epoch. A part of it is the server's: when a call is sent again to a server that
-- lacks the effect of the first one, it begins another epoch than the first call did.
local function new_epoch(ctx)
  return sub(ctx.epoch_digits, 1, 8) .. sub(replid(ctx), 1, 4)
end

-- The previous epochs, newest first, each as the text 'epoch seq'.
local function past_epochs(tag, room)
  local fields = call('HMGET', key(tag, NUMBERING, room), '1', '2', '3', '4', '5', '6', '7', '8')
  local past = {}
  for i = 1, #fields do
    if fields[i] then past[#past + 1] = fields[i] end
  end
  return past
end

-- Records where an epoch ended. If there are more than eight, one without any message is dropped
-- first, because few clients know it; but never the newest one.
local function record_epoch_end(tag, room, epoch, seq)
  local past = past_epochs(tag, room)
  table.insert(past, 1, epoch .. ' ' .. seq)
  if #past > 8 then
    local dropped = #past
    for i = #past - 1, 2, -1 do
      if string.match(past[i], ' .*') == string.match(past[i + 1], ' .*') then
        dropped = i
        break
      end
    end
    table.remove(past, dropped)
  end
  local numbering = key(tag, NUMBERING, room)
  for i = 1, #past do call('HSET', numbering, tostring(i), past[i]) end
end

-- Removes a room's log with its forms.
local function remove_log(tag, room)
  call('DEL', key(tag, LOG, room), key(tag, FORMS, room), key(tag, TARGETS, room),
    key(tag, COPY, room))
end

-- Removes forms without a pointer from `first` on: nothing that can be read needs them. At most 500.
-- Returns their number.
local function remove_forms(tag, room, first)
  local targets = key(tag, TARGETS, room)
  local unused = call('ZRANGEBYSCORE', targets, '-inf', '(' .. int(first), 'LIMIT', 0, 500)
  if unused[1] then
    call('HDEL', key(tag, FORMS, room), unpack(unused))
    call('ZREM', targets, unpack(unused))
  end
  return #unused
end

-- The room's numbering, which is begun if there is none. If Redis was restarted, restored or
-- promoted since the last call (its replid differs), the end of the log may be lost: a new epoch
-- continues from where the surviving data ends, and the end of the previous epoch is recorded.
-- Returns the epoch, the last seq, the last renewal of the retention unless a new epoch has begun,
-- and whether the room has forms. `numbering` is the name of the room's key. Never used with an
-- archive: see archive.lua.
local function open_numbering(ctx, tag, room, numbering)
  local fields = call('HMGET', numbering, 'e', 's', 'r', 'x', 'f')
  local epoch, seq, known_replid, renewal, has_forms = unpack(fields)
  if not epoch then
    remove_log(tag, room)
    call('DEL', key(tag, CHANGES, room))
    call('HSET', numbering, 'e', new_epoch(ctx), 's', '0', 'r', replid(ctx))
    call('PEXPIRE', numbering, ctx.ttl_ms)
    return new_epoch(ctx), 0
  end
  if known_replid ~= replid(ctx) then
    record_epoch_end(tag, room, epoch, seq)
    call('HSET', numbering, 'e', new_epoch(ctx), 'r', replid(ctx))
    call('HDEL', numbering, 'a', 'y', 'd')
    return new_epoch(ctx), tonumber(seq), nil, has_forms
  end
  return epoch, tonumber(seq), renewal, has_forms
end

-- Sets how long the room's numbering is kept: without a limit while the room has members or entries
-- above its watermark, or if it is permanent, else for ttl_ms and 1/64 of it. Because of the
-- excess, append.lua renews the time once in a while instead of at each append.
local function renew_numbering(ctx, tag, room, permanent)
  local numbering = key(tag, NUMBERING, room)
  local fields = call('HMGET', numbering, 's', 'a')
  local has_unarchived = fields[1] and fields[2] and tonumber(fields[2]) < tonumber(fields[1])
  if permanent or has_unarchived or call('EXISTS', key(tag, MEMBERS, room)) == 1 then
    call('PERSIST', numbering)
  else
    call('PEXPIRE', numbering, int(ctx.ttl_ms + ctx.ttl_ms / 64))
  end
end
