-- Reads a part of a room's log.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  A (after), B (before) or N (newest)
-- ARGV[7]  the seq that A and B refer to
-- ARGV[8]  at most so many messages
-- ARGV[9]  of at most so many bytes together, but always one
-- Returns epoch, seq, oldest, the epochs before with where each ended, parted by spaces, then for each message in rising
-- order: seq, epoch, time, record.
-- Atomic: all of one moment. Begins the numbering of a room that has none, so that its epoch lasts.
local R, mode, at, limit, bytes = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local epoch, seq = open(R)
local low = oldest(R, seq)
local reply = { epoch, int(seq), int(low), table.concat(past(R), ' ') }
local found = {}
if limit > 0 then
  if mode == 'A' then
    found = call('XRANGE', T .. 'h:' .. R, int(math.max(at + 1, low)) .. '-0', '+', 'COUNT', limit)
  else
    local high = mode == 'B' and math.min(at - 1, seq) or seq
    if high >= low then
      found = call('XREVRANGE', T .. 'h:' .. R, int(high) .. '-0', int(low) .. '-0', 'COUNT', limit)
    end
  end
end
local taken, sum = 0, 0
for i = 1, #found do
  sum = sum + #found[i][2][6]
  if i > 1 and sum > bytes then break end
  taken = i
end
for i = 1, taken do
  local entry = found[mode == 'A' and i or taken + 1 - i]
  local fields = entry[2]
  reply[#reply + 1] = string.match(entry[1], '^%d+')
  reply[#reply + 1] = fields[2]
  reply[#reply + 1] = fields[4]
  reply[#reply + 1] = fields[6]
end
return reply
