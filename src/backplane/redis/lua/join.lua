-- Puts a connection into a room and reads who is there.
--
-- ARGV[5…10]  room (base64url), incarnation, connection, user, name, at most so many ids
-- Returns epoch, seq, oldest, the epochs before with where each ended, parted by spaces, changes published, the replid,
-- total, version, ids…
-- Atomic: all of one moment. Repeating it only reads. FENCED when the incarnation was reaped.
local R, inc, conn, user, name, limit = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
if fenced(inc) then return redis.error_reply(FENCED) end
local epoch, seq = open(R)
local changes = 0
if enter(R, inc, conn, user, name) then
  change(R, 'J', user, name)
  changes = 1
end
return roster({ epoch, int(seq), int(oldest(R, seq)), table.concat(past(R), ' '), changes, replid() }, R, limit, user)
