-- Condemns an incarnation: from now on its heartbeats are refused.
--
-- ARGV[5]  incarnation
-- ARGV[6]  EXPIRED: only if its lease has expired; ALWAYS: in any case
--
-- Returns 1 if the incarnation is condemned, else 0. Atomic.
local ctx = context()
local incarnation, condition = ARGV[5], ARGV[6]

local lease_end = call('ZSCORE', key(ctx.tag, LEASES, ''), incarnation)
if condition == 'EXPIRED' and (not lease_end or tonumber(lease_end) > ctx.now) then return { 0 } end
call('ZADD', key(ctx.tag, CONDEMNED, ''), int(ctx.now), incarnation)
call('ZREMRANGEBYSCORE', key(ctx.tag, CONDEMNED, ''), '-inf', int(ctx.now - 86400000))
return { 1 }
