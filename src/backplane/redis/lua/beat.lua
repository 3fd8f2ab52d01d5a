-- A node's heartbeat: prolongs its lease and hands out dead incarnations to reap.
--
-- L          sorted set: incarnations by the end of their lease
-- B          the time of the last heartbeat of any node
-- D          sorted set: incarnations given up, by the time of it
-- claim:inc  the incarnation that reaps inc just now
--
-- ARGV[5]  incarnation
-- ARGV[6]  milliseconds a lease lasts
-- ARGV[7]  milliseconds a claim lasts
-- ARGV[8]  hand out at most so many
-- Returns NEW (no lease was known), KNOWN, or GONE (given up: take another incarnation), then incarnations to reap,
-- each handed to one node at a time. Atomic.
local inc, lease = ARGV[5], tonumber(ARGV[6])
if call('ZSCORE', T .. 'D', inc) then return { 'GONE' } end
local reply = { call('ZSCORE', T .. 'L', inc) and 'KNOWN' or 'NEW' }
-- When nobody has beaten for long, it was Redis that was away: the others are on their way back as this one is, and get a
-- new lease each, or the first one back would reap all of them. Those given up before stay what they are.
if NOW - tonumber(call('GET', T .. 'B') or '0') > lease / 2 then
  local all = call('ZRANGEBYSCORE', T .. 'L', '-inf', '(' .. int(NOW + lease))
  for i = 1, #all do
    if not call('ZSCORE', T .. 'D', all[i]) then call('ZADD', T .. 'L', int(NOW + lease), all[i]) end
  end
end
call('ZADD', T .. 'L', int(NOW + lease), inc)
call('SET', T .. 'B', int(NOW))
local dead = call('ZRANGEBYSCORE', T .. 'L', '-inf', int(NOW), 'LIMIT', 0, ARGV[8])
for i = 1, #dead do
  if call('SET', T .. 'claim:' .. dead[i], inc, 'NX', 'PX', ARGV[7]) then reply[#reply + 1] = dead[i] end
end
return reply
