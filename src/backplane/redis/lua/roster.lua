-- Reads a room's members, without their names.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the most ids to return
--
-- Returns the number of members, the version of the membership, and ids. Atomic.
local ctx = context()
local room, limit = ARGV[5], tonumber(ARGV[6])

return add_roster(ctx, {}, room, limit, nil)
