-- Takes lost connections from users of one partition; the users stay online for the grace.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds
-- ARGV[7…] for each: user (base64url), connection
-- Returns the number of graces recorded. Atomic; a connection that isn't registered is passed over, so that repeating it
-- doesn't prolong a grace. FENCED when the incarnation was reaped (whose connections were lost with it).
local inc, ms, graces = ARGV[5], tonumber(ARGV[6]), 0
if fenced(inc) then return redis.error_reply(FENCED) end
for i = 7, #ARGV, 2 do
  local U = ARGV[i]
  if call('HDEL', T .. 'c:' .. U, ARGV[i + 1]) == 1 then
    local held, mine = call('HVALS', T .. 'c:' .. U), false
    for j = 1, #held do mine = mine or held[j] == inc end
    if not mine then call('SREM', T .. 'N:' .. inc, U) end
    grace(U, ms)
    graces = graces + 1
  end
end
return { graces }
