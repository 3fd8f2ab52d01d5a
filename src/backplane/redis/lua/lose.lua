-- Takes lost connections out of rooms of one partition; their users keep their places for the grace.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds
-- ARGV[7…] for each: room (base64url), connection
-- Returns the number of graces recorded. Atomic; a connection that isn't in the room is passed over, so that repeating
-- it doesn't prolong a grace. FENCED when the incarnation was reaped (whose connections were lost with it).
local inc, ms, graces = ARGV[5], tonumber(ARGV[6]), 0
if fenced(inc) then return redis.error_reply(FENCED) end
for i = 7, #ARGV, 2 do
  local user = depart(ARGV[i], inc, ARGV[i + 1])
  if user then
    grace(ARGV[i] .. ':' .. user, ms)
    graces = graces + 1
  end
end
return { graces }
