-- Prepended to every script: the call's context and the names of keys.
--
-- KEYS[1]  the tag of the call's partition: the deployment's prefix and the hash tag, such as
--          hubbub:{c17}. Every key that a script touches begins with it and so lies in its slot.
--          Scripts build the names of keys themselves, because one call may serve many rooms or
--          users of the partition.
-- KEYS[2]  the beginning of the partition's channels: the tag, then r, the number of the database
--          and a colon. (Redis keeps channels apart by nothing but their names.)
--
-- Neither of the two is ever used as a key. The second one is needed while a cluster moves the
-- slot: the server that gives the slot away redirects a call whose keys it lacks to the server that
-- receives the slot. The receiver would take a single missing key for a new key and run the script
-- without the data, but it refuses a call with two keys that it lacks (TRYAGAIN), and the caller
-- repeats the call.
--
-- ARGV[1]  the command that publishes: PUBLISH, or SPUBLISH in a cluster
-- ARGV[2]  hexadecimal digits that were never used before, for the name of a new epoch
-- ARGV[3]  the number of log entries kept per room
-- ARGV[4]  milliseconds for which an empty room or an offline user is remembered
--
-- A script's own arguments begin at ARGV[5].
local tag, channels = KEYS[1], KEYS[2]
local publish_command, epoch_digits, history_size, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local call, protected_call = redis.call, redis.pcall
local byte, find, format, sub = string.byte, string.find, string.format, string.sub

-- The part of a channel's name between the tag of a partition and the name of a room or user.
local CHANNEL = sub(channels, #tag + 1)

-- The context of this call. Scripts pass it to the shared functions that need it:
--   tag           the tag of the call's partition
--   publish       the command that publishes
--   epoch_digits  for the name of a new epoch
--   history_size  the number of log entries kept per room, as text
--   ttl_ms        the time for which an empty room or an offline user is remembered, as text
--   now           milliseconds since the Unix epoch. Only Redis's clock is used, never a node's.
--   replid        set by replid()
--   archive       set by scripts about logs: the name of the archive behind them, eight digits;
--                 empty without an archive
local function context()
  local time = call('TIME')
  return {
    tag = tag,
    publish = publish_command,
    epoch_digits = epoch_digits,
    history_size = history_size,
    ttl_ms = ttl_ms,
    now = time[1] * 1000 + math.floor(time[2] / 1000),
  }
end

-- The name of a key. The prefix is one of the constants of the script or of a shared file, whose
-- headers describe the keys. The name is that of a room or a user in base64url, or an incarnation;
-- for keys of the whole partition it is empty.
local function key(tag, prefix, name) return tag .. prefix .. name end

-- A number as text. Lua alone would write large numbers as 1e+15.
local function int(number) return format('%.0f', number) end

-- The id of the history that this server's data belongs to (master_replid). It differs after every
-- restart and promotion, and an earlier id never comes back.
local function replid(ctx)
  if not ctx.replid then
    local info = call('INFO', 'replication')
    local _, before = find(info, 'master_replid:', 1, true)
    local line_end = before and find(info, '\r', before, true)
    -- Without it, lost data could not be noticed.
    assert(line_end, 'this server does not report its replication id (master_replid)')
    ctx.replid = sub(info, before + 1, line_end - 1)
  end
  return ctx.replid
end
