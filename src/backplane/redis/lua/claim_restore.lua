-- Claims the restore of a room, and reads the state of the room's log.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the name of the archive behind the log
-- ARGV[7]  a token for this restore
-- ARGV[8]  milliseconds that the claim lasts
--
-- Returns OPEN if the room need not be restored; TAKEN if another restore has claimed it; else
-- CLAIMED and the state of the room: epoch (empty if the room isn't known: then nothing follows),
-- last seq, the lowest seq in the log, the previous epochs (see span.lua), the watermark (empty:
-- none), 1 if entries at the end may be lost, the last seq that log and archive share (empty: they
-- don't differ), and the ranges after the watermark that the archive has, as 'first last first last
-- …'. Atomic. A repeat with the same token returns the state again.
local ctx = context()
local room, archive, token, claim_ms = ARGV[5], ARGV[6], ARGV[7], ARGV[8]

ctx.archive = archive
local numbering = key(ctx.tag, NUMBERING, room)
if archived_numbering(ctx, numbering) then return { 'OPEN' } end
local claim = restore_key(ctx, room)
if not call('SET', claim, token, 'NX', 'PX', claim_ms) and call('GET', claim) ~= token then
  return { 'TAKEN' }
end

local fields = call('HMGET', numbering, 'e', 's', 'r', 'a', 'd', 'y')
local epoch, seq, history, watermark, shared, archived = unpack(fields)
if not epoch then return { 'CLAIMED', '' } end
local known_replid, known_archive = string.match(history, '^(%S+) ?(.*)$')
-- The watermark and the ranges are about this archive only.
if known_archive ~= archive then watermark, archived = false, false end
local is_stale = known_replid ~= replid(ctx)

local log = key(ctx.tag, LOG, room)
local first = call('XRANGE', log, '-', int(seq) .. '-0', 'COUNT', 1)[1]
local oldest = first and string.match(first[1], '^%d+') or int(seq + 1)
return {
  'CLAIMED', epoch, seq, oldest, table.concat(past_epochs(ctx.tag, room), ' '),
  watermark or '', is_stale and 1 or 0, shared or '', archived or '',
}
