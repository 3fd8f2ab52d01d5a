-- Reads entries of a room's log as they are, also if the room must be restored.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the seq after which to read
-- ARGV[7]  the most entries to return
-- ARGV[8]  the most bytes of records to return; one entry is returned even if its record is larger
--
-- Returns 0 if the room isn't known; else 1 and the entries (see entries.lua). Atomic.
local ctx = context()
local room, after = ARGV[5], tonumber(ARGV[6])
local limit, max_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])

local fields = call('HMGET', key(ctx.tag, NUMBERING, room), 'e', 's')
if not fields[1] then return { 0 } end
local found = entries_after(ctx, room, after, fields[2], limit)
return add_entries({ 1 }, found, false, max_bytes)
