-- One step of removing a dead or stopping incarnation from a partition's rooms.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds (0: none)
-- ARGV[7]  about the most connections to remove
--
-- Returns the number of connections removed, of changes published, of graces begun, and 1 if more
-- is to be done. Atomic. The incarnation is fenced first, so that it adds nothing behind this step.
-- Repeat until nothing is left.
local ctx = context()
local incarnation, grace_ms, budget = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])

fence(ctx, incarnation)
local held = held_key(ctx, incarnation)

-- Some connections of the incarnation in the room: connection, user, … Earlier steps have left
-- empty buckets in the hash, and one HSCAN returns nothing when it finds only those: so the cursor
-- is followed until something is found or all was seen. (HRANDFIELD would be simpler, but Redis 6.0
-- doesn't have it.)
local function some_connections(room)
  local cursor, found = '0', nil
  repeat
    local scan = call('HSCAN', connections_key(ctx, room, incarnation), cursor, 'COUNT', budget)
    cursor, found = scan[1], scan[2]
  until #found > 0 or cursor == '0'
  return found
end

local removed, changes, graces = 0, 0, 0
while removed < budget do
  local room = call('SRANDMEMBER', held)
  if not room then break end
  local found = some_connections(room)
  if #found == 0 then call('SREM', held, room) end
  for i = 1, #found, 2 do
    local user, remaining = remove_connection(ctx, room, incarnation, found[i])
    if user then
      if grace_ms > 0 then
        begin_grace(ctx, grace_of(room, user), grace_ms)
        graces = graces + 1
      elseif remaining <= 0 and not has_grace(ctx, room, user) then
        changes = changes + remove_member(ctx, room, user)
      end
    end
  end
  removed = removed + math.max(1, #found / 2)
end
return { removed, changes, graces, call('EXISTS', held) }
