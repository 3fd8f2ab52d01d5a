-- Gives up the claim of a restore that has failed.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the token of the claim
--
-- Returns 1 if the claim was still there. Atomic.
local ctx = context()
local room, token = ARGV[5], ARGV[6]

local claim = restore_key(ctx, room)
if call('GET', claim) ~= token then return { 0 } end
return { call('DEL', claim) }
