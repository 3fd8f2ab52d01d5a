-- Ends graces that are over, of users in rooms of one partition.
--
-- ARGV[5]  the most graces to end
--
-- Returns the number of graces ended, the number of changes published, the milliseconds until the
-- next grace ends (-1: there is none), and the number of logs that scrub.lua has to handle now (at most
-- one is counted). Atomic. Any node may run it.
local ctx = context()
local limit = ARGV[5]

local due = call('ZRANGEBYSCORE', key(ctx.tag, GRACES, ''), '-inf', int(ctx.now), 'LIMIT', 0, limit)
local changes = 0
for i = 1, #due do
  call('ZREM', key(ctx.tag, GRACES, ''), due[i])
  local room, user = string.match(due[i], '^([^:]+):(.*)$')
  if tonumber(call('HGET', key(ctx.tag, CONNECTION_COUNTS, room), user) or '0') <= 0 then
    changes = changes + remove_member(ctx, room, user)
  end
end
local logs = call('ZRANGEBYSCORE', key(ctx.tag, SCRUBS, ''), '-inf', int(ctx.now), 'LIMIT', 0, 1)
return { #due, changes, until_next_grace(ctx), #logs }
