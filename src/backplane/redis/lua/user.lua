-- What the scripts about users share. U is the user's id in base64url.
--
-- s:U      hash: o online (0, 1), v version, p the version before, l time of the last change, u name
-- c:U      hash: live connection → incarnation
-- N:<inc>  set: the users of this partition with connections of that incarnation
-- F        sorted set: fenced incarnations, by the time of their fencing
-- g        sorted set: U by the end of the grace
-- p:U      stream of the last changes, ids version-0: o online, l last seen, n name, p previous

-- Turns the user online ('1') or offline ('0'), if that is news: numbers, keeps and publishes the change.
local function flip(U, online)
  local key = T .. 's:' .. U
  local s = call('HMGET', key, 'o', 'v', 'u')
  if (s[1] or '0') == online then return 0 end
  local previous = tonumber(s[2] or '0')
  local version = int(math.max(previous + 1, NOW))
  local name = s[3] or ''
  call('HSET', key, 'o', online, 'v', version, 'p', int(previous), 'l', int(NOW))
  call('XADD', T .. 'p:' .. U, 'MAXLEN', '=', 100, version .. '-0', 'o', online, 'l', int(NOW), 'n', name, 'p', int(previous))
  call('PEXPIRE', T .. 'p:' .. U, TTL)
  if online == '1' then call('PERSIST', key) else call('PEXPIRE', key, TTL) end
  call(PUB, T .. 'r:' .. U, 'S' .. version .. ' ' .. int(previous) .. ' ' .. online .. ' ' .. int(NOW) .. '\n' .. name)
  return 1
end
