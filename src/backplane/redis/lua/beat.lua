-- A node's heartbeat: prolongs its lease and hands out dead incarnations to reap.
--
-- L          sorted set: incarnations by the end of their lease
-- D          sorted set: incarnations given up, by the time of it
-- claim:inc  the incarnation that reaps inc just now
--
-- ARGV[5]  incarnation
-- ARGV[6]  milliseconds a lease lasts
-- ARGV[7]  milliseconds a claim lasts
-- Returns NEW (no lease was known), KNOWN, or GONE (given up: take another incarnation), then incarnations to reap,
-- each handed to one node at a time. Atomic.
local inc = ARGV[5]
if call('ZSCORE', T .. 'D', inc) then return { 'GONE' } end
local reply = { call('ZSCORE', T .. 'L', inc) and 'KNOWN' or 'NEW' }
call('ZADD', T .. 'L', int(NOW + ARGV[6]), inc)
local dead = call('ZRANGEBYSCORE', T .. 'L', '-inf', int(NOW), 'LIMIT', 0, 20)
for i = 1, #dead do
  if call('SET', T .. 'claim:' .. dead[i], inc, 'NX', 'PX', ARGV[7]) then reply[#reply + 1] = dead[i] end
end
return reply
