-- One step of taking a dead or stopping incarnation from a partition's users.
--
-- ARGV[5]  incarnation
-- ARGV[6]  the grace in milliseconds (0: none)
-- ARGV[7]  at most so many users
-- Returns users looked at, changes published, graces recorded, and 1 when there is more to do.
-- Atomic; the fence comes first, so that nothing is put in behind it. Repeat until nothing is left.
local inc, ms = ARGV[5], tonumber(ARGV[6])
fence(inc)
local changes, graces = 0, 0
local users = call('SRANDMEMBER', T .. 'N:' .. inc, ARGV[7])
for i = 1, #users do
  local U = users[i]
  local held = call('HGETALL', T .. 'c:' .. U)
  local left = #held / 2
  for j = 1, #held, 2 do
    if held[j + 1] == inc then
      call('HDEL', T .. 'c:' .. U, held[j])
      left = left - 1
    end
  end
  call('SREM', T .. 'N:' .. inc, U)
  if ms > 0 then
    grace(U, ms)
    graces = graces + 1
  elseif left == 0 and not call('ZSCORE', T .. 'g', U) then
    changes = changes + flip(U, '0')
  end
end
return { #users, changes, graces, call('EXISTS', T .. 'N:' .. inc) }
