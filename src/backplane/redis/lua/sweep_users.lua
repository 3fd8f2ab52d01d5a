-- Ends the graces of one partition's users that are over.
--
-- ARGV[5]  at most so many
-- Returns how many were looked at, changes published, and the milliseconds until the next one (-1: there is none).
-- Atomic; any node may do it.
local due = call('ZRANGEBYSCORE', T .. 'g', '-inf', int(NOW), 'LIMIT', 0, ARGV[5])
local changes = 0
for i = 1, #due do
  call('ZREM', T .. 'g', due[i])
  -- Who has a connection is online already, but where the state was lost and taken over from what watchers knew.
  changes = changes + flip(due[i], call('EXISTS', T .. 'c:' .. due[i]) == 1 and '1' or '0')
end
local first = call('ZRANGE', T .. 'g', 0, 0, 'WITHSCORES')[2]
return { #due, changes, first and int(math.max(0, first - NOW)) or '-1' }
