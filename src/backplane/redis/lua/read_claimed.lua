-- Reads entries of a room whose restore is claimed, as they are in the log, and renews the claim.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the token of the claim
-- ARGV[7]  milliseconds that the claim lasts from now on
-- ARGV[8]  the seq after which to read
-- ARGV[9]  the most entries to return
-- ARGV[10] the most bytes of records to return; one entry is returned even if its record is larger
--
-- Returns LOST if the claim has ended; else READ and the entries (see entries.lua). Atomic. A repeat
-- reads the same entries again, unless the log was trimmed meanwhile.
local ctx = context()
local room, token, claim_ms, after = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local limit, max_bytes = tonumber(ARGV[9]), tonumber(ARGV[10])

local claim = restore_key(ctx, room)
if call('GET', claim) ~= token then return { 'LOST' } end
call('PEXPIRE', claim, claim_ms)
local seq = call('HGET', key(ctx.tag, NUMBERING, room), 's')
return add_entries({ 'READ' }, entries_after(ctx, room, after, seq, limit), false, max_bytes)
