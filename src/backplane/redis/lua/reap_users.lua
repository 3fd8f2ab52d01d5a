-- One step of removing a dead or stopping incarnation from a partition's users.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds (0: none)
-- ARGV[7]  the most users to process
--
-- Returns the number of users processed, of changes published, of graces begun, and 1 if more is to
-- be done. Atomic. The incarnation is fenced first, so that it adds nothing behind this step.
-- Repeat until nothing is left.
local ctx = context()
local incarnation, grace_ms, limit = ARGV[5], tonumber(ARGV[6]), ARGV[7]

fence(ctx, incarnation)
local held = held_key(ctx, incarnation)

-- Removes the incarnation's connections of the user. Returns the number of connections that the
-- user still has.
local function remove_connections(user)
  local connections = call('HGETALL', key(ctx.tag, CONNECTIONS, user))
  local remaining = #connections / 2
  for i = 1, #connections, 2 do
    if connections[i + 1] == incarnation then
      call('HDEL', key(ctx.tag, CONNECTIONS, user), connections[i])
      remaining = remaining - 1
    end
  end
  return remaining
end

local changes, graces = 0, 0
local names = call('SRANDMEMBER', held, limit)
for i = 1, #names do
  local user = names[i]
  local remaining = remove_connections(user)
  call('SREM', held, user)
  if grace_ms > 0 then
    begin_grace(ctx, user, grace_ms)
    graces = graces + 1
  elseif remaining == 0 and not call('ZSCORE', key(ctx.tag, GRACES, ''), user) then
    changes = changes + set_online(ctx, user, '0')
  end
end
return { #names, changes, graces, call('EXISTS', held) }
