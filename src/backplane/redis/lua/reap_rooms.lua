-- One step of taking a dead or stopping incarnation out of a partition's rooms.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds (0: none)
-- ARGV[7]  at most about so many connections
-- Returns connections taken out, changes published, graces recorded, and 1 when there is more to do.
-- Atomic; the fence comes first, so that nothing is put in behind it. Repeat until nothing is left.
local inc, ms, budget = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
fence(inc)
local taken, changes, graces = 0, 0, 0
while taken < budget do
  local R = call('SRANDMEMBER', T .. 'N:' .. inc)
  if not R then break end
  local key = T .. 'n:' .. R .. ':' .. inc
  -- What earlier steps took out left empty buckets, among which one HSCAN gives up: so its cursor is followed until it
  -- finds something or has seen all. (HRANDFIELD would do, but Redis 6.0 doesn't have it.)
  local cursor, found = '0', nil
  repeat
    local scan = call('HSCAN', key, cursor, 'COUNT', budget)
    cursor, found = scan[1], scan[2]
  until #found > 0 or cursor == '0'
  if #found == 0 then call('SREM', T .. 'N:' .. inc, R) end
  for i = 1, #found, 2 do
    local user, left = depart(R, inc, found[i])
    if user then
      local member = R .. ':' .. user
      if ms > 0 then
        grace(member, ms)
        graces = graces + 1
      elseif left <= 0 and not call('ZSCORE', T .. 'g', member) then
        changes = changes + vacate(R, user)
      end
    end
  end
  taken = taken + math.max(1, #found / 2)
end
return { taken, changes, graces, call('EXISTS', T .. 'N:' .. inc) }
