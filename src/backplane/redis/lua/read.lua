-- Reads a part of a room's log.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  A: the first entries after a seq; B: the last entries before a seq; N: the newest
--          entries
-- ARGV[7]  the seq that A and B refer to
-- ARGV[8]  the most entries to return
-- ARGV[9]  the most bytes of records to return; one entry is returned even if its record is larger
-- ARGV[10] the name of the archive behind the log; empty: none
-- ARGV[11…] seqs of messages whose forms to return as well
--
-- Returns epoch, last seq, oldest seq, the previous epochs (see span.lua); then 1 if there may have
-- been changes of messages, else 0; the seq behind which there is no reply, or 0; and the watermark
-- (without an archive the last seq); then the number of forms and the forms that the entries need;
-- then the entries (see entries.lua). Atomic: all of the same moment. Begins the numbering of a room
-- that has none, so that its epoch lasts. With an archive: UNRESTORED if the room must be restored
-- first.
local ctx = context()
local room = ARGV[5]
local mode, reference = ARGV[6], tonumber(ARGV[7])
local limit, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
ctx.archive = ARGV[10]

local epoch, seq, watermark, has_forms = numbering_of(ctx, room)
if not epoch then return unrestored_error() end
local reply, oldest = span_reply(ctx, room, epoch, seq, watermark)
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
reply[#reply + 1] = has_forms and 1 or 0
reply[#reply + 1] = call('HGET', key(ctx.tag, NUMBERING, room), 'q') or '0'
reply[#reply + 1] = int(watermark or seq)
if has_forms then
  add_forms(ctx, reply, room, found, max_bytes, { unpack(ARGV, 11) })
else
  reply[#reply + 1] = 0
end
return add_entries(reply, found, mode ~= 'A', max_bytes)
