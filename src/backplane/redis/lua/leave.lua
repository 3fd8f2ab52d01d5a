-- Takes a connection out of a room at once.
--
-- ARGV[5…7]  room (base64url), incarnation, connection
-- Returns the number of changes published. Atomic; does nothing when the connection isn't in the room. A grace of the
-- user's that is still running keeps the place. FENCED when the incarnation was reaped.
local R, inc, conn = ARGV[5], ARGV[6], ARGV[7]
if fenced(inc) then return redis.error_reply(FENCED) end
local user, left = depart(R, inc, conn)
if user and left <= 0 and not call('ZSCORE', T .. 'g', R .. ':' .. user) then return { vacate(R, user) } end
return { 0 }
