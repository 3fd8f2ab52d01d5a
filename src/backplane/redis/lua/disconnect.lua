-- Unregisters lost connections of users of one partition; the users stay online for the grace.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds
-- ARGV[7…] for each: user (base64url), connection
--
-- Returns the number of graces begun. Atomic. A connection that isn't registered is skipped, so a
-- repeat doesn't prolong a grace. FENCED if the incarnation was reaped (the connections were lost
-- with it).
local ctx = context()
local incarnation, grace_ms = ARGV[5], tonumber(ARGV[6])

if is_fenced(ctx, incarnation) then return fenced_error() end

-- Whether the user has a connection of the incarnation.
local function is_held(user)
  local holders = call('HVALS', key(ctx.tag, CONNECTIONS, user))
  for i = 1, #holders do
    if holders[i] == incarnation then return true end
  end
  return false
end

local graces = 0
for i = 7, #ARGV, 2 do
  local user, conn = ARGV[i], ARGV[i + 1]
  if call('HDEL', key(ctx.tag, CONNECTIONS, user), conn) == 1 then
    if not is_held(user) then call('SREM', held_key(ctx, incarnation), user) end
    begin_grace(ctx, user, grace_ms)
    graces = graces + 1
  end
end
return { graces }
