-- Shared by the scripts that return entries of a log; requires log.lua.

-- Appends entries of a stream to the reply, in ascending order: for each its seq, epoch, time, the
-- letter of its kind, and record. Takes the first ones of `found` whose records have at most
-- max_bytes bytes in total, and at least one. `is_descending`: the order of `found`.
local function add_entries(reply, found, is_descending, max_bytes)
  -- A stream entry is { id, { 'e', epoch, 't', time, letter, record } }.
  local taken, bytes = 0, 0
  for i = 1, #found do
    bytes = bytes + #found[i][2][6]
    if i > 1 and bytes > max_bytes then break end
    taken = i
  end
  for i = 1, taken do
    local entry = found[is_descending and taken + 1 - i or i]
    local fields = entry[2]
    reply[#reply + 1] = string.match(entry[1], '^%d+')
    reply[#reply + 1] = fields[2]
    reply[#reply + 1] = fields[4]
    reply[#reply + 1] = fields[5]
    reply[#reply + 1] = fields[6]
  end
  return reply
end

-- The entries of the log after a seq, at most `limit`. `last_seq`: the room's last seq, as text; false
-- if the room isn't known.
local function entries_after(ctx, room, after, last_seq, limit)
  if limit < 1 or after >= tonumber(last_seq or '0') then return {} end
  local log = key(ctx.tag, LOG, room)
  return call('XRANGE', log, int(after + 1) .. '-0', last_seq .. '-0', 'COUNT', int(limit))
end
