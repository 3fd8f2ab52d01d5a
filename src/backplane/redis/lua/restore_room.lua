-- Restores a room from the archive: sets how it continues, and the keys of its last sends.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the name of the archive behind the log
-- ARGV[7]  the token of the claim
-- ARGV[8]  1: this call restores the room; 0: it only sets keys of sends, and another call follows
-- ARGV[9]  milliseconds for which the key of a send is remembered
-- ARGV[10] milliseconds for which entries are kept after the room's last one
-- ARGV[11] 1 if the room's numbering is permanent
-- ARGV[12] the epoch with which the room was claimed (empty: not known)
-- ARGV[13] the last seq with which it was claimed (empty: not known)
-- ARGV[14] the epoch in which the room continues; empty: in its own one, or in a new one if not known
-- ARGV[15] its last seq, if ARGV[14] is given
-- ARGV[16] the previous epochs, newest first, each with the seq at which it ended, separated by
--          spaces, if ARGV[14] is given
-- ARGV[17] the watermark; if the entries stay and it has advanced further meanwhile, it stays there
-- ARGV[18] 1 if the log's entries stay: then ARGV[15] is the last seq with which it was claimed
-- ARGV[19…] for each send, newest first: <user>:<key>; its position (see append.lua); its time
--
-- Returns DONE; or LOST if the claim has ended; or CHANGED if the room is another one than at the
-- claim: then the claim ends. Atomic. A repeat returns LOST.
local ctx = context()
local room, archive, token, is_last = ARGV[5], ARGV[6], ARGV[7], ARGV[8] == '1'
local dedupe_ms, history_ms, is_permanent = ARGV[9], ARGV[10], ARGV[11] == '1'
local claimed_epoch, claimed_seq = ARGV[12], ARGV[13]
local epoch, seq, past = ARGV[14], ARGV[15], ARGV[16]
local watermark, keeps_entries = tonumber(ARGV[17]), ARGV[18] == '1'
local FIRST_SEND = 19
local SENDS = 'i:'

ctx.archive = archive
local claim, numbering = restore_key(ctx, room), key(ctx.tag, NUMBERING, room)
if call('GET', claim) ~= token then return { 'LOST' } end
local known = call('HMGET', numbering, 'e', 's', 'r', 'a', 'f')
if (known[1] or '') ~= claimed_epoch or (known[1] and known[2] or '') ~= claimed_seq then
  call('DEL', claim)
  return { 'CHANGED' }
end

-- The oldest first: if two sends have the same key, the newest remains.
for i = #ARGV - 2, FIRST_SEND, -3 do
  local remaining_ms = ARGV[i + 2] + dedupe_ms - ctx.now
  if remaining_ms >= 1 then
    local send_key = key(ctx.tag, SENDS, room) .. ':' .. ARGV[i]
    call('SET', send_key, ARGV[i + 1], 'PX', int(remaining_ms))
  end
end
if not is_last then return { 'DONE' } end

if not known[1] then
  remove_log(ctx.tag, room)
  call('DEL', key(ctx.tag, CHANGES, room))
elseif not keeps_entries then
  remove_log(ctx.tag, room)
end
-- Watermark and ranges of entries that stay count on, unless they are about another archive.
if known[4] and keeps_entries and string.match(known[3], ' (%S+)$') == archive then
  watermark = math.max(watermark, tonumber(known[4]))
else
  call('HDEL', numbering, 'y')
end
if epoch ~= '' then
  call('HDEL', numbering, '1', '2', '3', '4', '5', '6', '7', '8')
  local n = 0
  for ended, last in string.gmatch(past, '(%S+) (%d+)') do
    n = n + 1
    call('HSET', numbering, int(n), ended .. ' ' .. last)
  end
elseif known[1] then
  epoch, seq = known[1], known[2]
else
  epoch, seq = new_epoch(ctx), '0'
end
call('HDEL', numbering, 'd', 'x')
call('HSET', numbering, 'e', epoch, 's', seq, 'r', archived_history(ctx), 'a', int(watermark))
if watermark < tonumber(seq) then
  keep_unarchived(ctx, ctx.tag, room, known[5])
else
  release_archived(ctx, ctx.tag, room, is_permanent, history_ms, known[5])
end
call('DEL', claim)
return { 'DONE' }
