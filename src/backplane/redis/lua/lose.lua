-- Removes lost connections from rooms of one partition; their users stay members for the grace.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds
-- ARGV[7…] for each: room (base64url), connection
--
-- Returns the number of graces begun. Atomic. A connection that isn't in the room is skipped, so a
-- repeat doesn't prolong a grace. FENCED if the incarnation was reaped (the connections were lost
-- with it).
local ctx = context()
local incarnation, grace_ms = ARGV[5], tonumber(ARGV[6])

if is_fenced(ctx, incarnation) then return fenced_error() end
local graces = 0
for i = 7, #ARGV, 2 do
  local room, conn = ARGV[i], ARGV[i + 1]
  local user = remove_connection(ctx, room, incarnation, conn)
  if user then
    begin_grace(ctx, grace_of(room, user), grace_ms)
    graces = graces + 1
  end
end
return { graces }
