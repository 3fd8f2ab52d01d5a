-- Gives an incarnation up, after which its heartbeats are refused; or forgets one that was reaped.
--
-- ARGV[5]  incarnation
-- ARGV[6]  DEAD: if its lease has run out; STOP: in any case; DONE: forget its lease; WHO: only look
-- ARGV[7…] WHO: more incarnations
-- Returns 1 when it is given up; for WHO those of all the incarnations named whose lease has run out. Atomic.
local inc, what = ARGV[5], ARGV[6]
if what == 'DONE' then
  call('DEL', T .. 'claim:' .. inc)
  call('ZREM', T .. 'L', inc)
  return { 1 }
end
if what == 'WHO' then
  local dead = {}
  for i = 7, #ARGV do
    local lease = call('ZSCORE', T .. 'L', ARGV[i])
    if not lease or tonumber(lease) < NOW then dead[#dead + 1] = ARGV[i] end
  end
  return dead
end
local lease = call('ZSCORE', T .. 'L', inc)
if what == 'DEAD' and (not lease or tonumber(lease) > NOW) then return { 0 } end
call('ZADD', T .. 'D', int(NOW), inc)
call('ZREMRANGEBYSCORE', T .. 'D', '-inf', int(NOW - 86400000))
return { 1 }
