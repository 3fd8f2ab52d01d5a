-- Ends graces that are over, of users of one partition.
--
-- ARGV[5]  the most graces to end
--
-- Returns the number of graces ended, the number of changes published, and the milliseconds until
-- the next grace ends (-1: there is none). Atomic. Any node may run it.
local ctx = context()
local limit = ARGV[5]

local due = call('ZRANGEBYSCORE', key(ctx.tag, GRACES, ''), '-inf', int(ctx.now), 'LIMIT', 0, limit)
local changes = 0
for i = 1, #due do
  call('ZREM', key(ctx.tag, GRACES, ''), due[i])
  local user = due[i]
  -- A user with a connection is online already, except if the status was lost and restored from a
  -- watcher's knowledge.
  local online = call('EXISTS', key(ctx.tag, CONNECTIONS, user)) == 1 and '1' or '0'
  changes = changes + set_online(ctx, user, online)
end
return { #due, changes, until_next_grace(ctx) }
