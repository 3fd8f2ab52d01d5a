-- Reads a part of a room's log.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  A: the first entries after a seq; B: the last entries before a seq; N: the newest
--          entries
-- ARGV[7]  the seq that A and B refer to
-- ARGV[8]  the most entries to return
-- ARGV[9]  the most bytes of records to return; one entry is returned even if its record is larger
--
-- Returns epoch, last seq, oldest seq, the previous epochs (see span.lua); then for each entry in
-- ascending order: seq, epoch, time, the letter of its kind, record. Atomic: all of the same
-- moment. Begins the numbering of a room that has none, so that its epoch lasts.
local ctx = context()
local room = ARGV[5]
local mode, reference = ARGV[6], tonumber(ARGV[7])
local limit, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])

local epoch, seq = open_numbering(ctx, ctx.tag, room, key(ctx.tag, NUMBERING, room))
local reply, oldest = span_reply(ctx, room, epoch, seq)
local found = {}
if limit > 0 then
  local log = key(ctx.tag, LOG, room)
  if mode == 'A' then
    local first = int(math.max(reference + 1, oldest))
    found = call('XRANGE', log, first .. '-0', '+', 'COUNT', limit)
  else
    local last = mode == 'B' and math.min(reference - 1, seq) or seq
    if last >= oldest then
      found = call('XREVRANGE', log, int(last) .. '-0', int(oldest) .. '-0', 'COUNT', limit)
    end
  end
end

-- A stream entry is { id, { 'e', epoch, 't', time, letter, record } }.
local taken, bytes = 0, 0
for i = 1, #found do
  bytes = bytes + #found[i][2][6]
  if i > 1 and bytes > max_bytes then break end
  taken = i
end
for i = 1, taken do
  local entry = found[mode == 'A' and i or taken + 1 - i]
  local fields = entry[2]
  reply[#reply + 1] = string.match(entry[1], '^%d+')
  reply[#reply + 1] = fields[2]
  reply[#reply + 1] = fields[4]
  reply[#reply + 1] = fields[5]
  reply[#reply + 1] = fields[6]
end
return reply
