-- What the scripts about a room's members share. R is the room's name in base64url.
--
-- u:R        sorted set of the members' ids, all of score 0, so in their bytes' order
-- k:R        hash: user → connections in the room
-- w:R        hash: user → name
-- n:R:<inc>  hash: connection → user, of one incarnation of a node
-- N:<inc>    set: the rooms of this partition in which that incarnation has connections
-- F          sorted set: fenced incarnations, by the time of their fencing
-- g          sorted set: R:user by the end of the grace
-- p:R        stream of the last changes, ids version-0: k kind, u user, n name, t total, p previous

-- Numbers, keeps and publishes one change.
local function change(R, kind, user, name)
  local previous = tonumber(call('HGET', T .. 'm:' .. R, 'v') or '0')
  local version = math.max(previous + 1, NOW)
  local total = call('ZCARD', T .. 'u:' .. R)
  call('HSET', T .. 'm:' .. R, 'v', int(version))
  call('XADD', T .. 'p:' .. R, 'MAXLEN', '=', 100, int(version) .. '-0',
    'k', kind, 'u', user, 'n', name, 't', total, 'p', int(previous))
  call('PEXPIRE', T .. 'p:' .. R, TTL)
  call(PUB, T .. 'r:' .. R, 'C' .. int(version) .. ' ' .. int(previous) .. ' ' .. kind .. ' ' .. total .. ' ' .. #user
    .. '\n' .. user .. name)
end

-- Puts a connection in; true when it brought the user. The room must be open.
local function enter(R, inc, conn, user, name)
  if call('HSETNX', T .. 'n:' .. R .. ':' .. inc, conn, user) == 1 then
    call('HINCRBY', T .. 'k:' .. R, user, 1)
    call('SADD', T .. 'N:' .. inc, R)
  end
  call('ZREM', T .. 'g', R .. ':' .. user)
  call('HSET', T .. 'w:' .. R, user, name)
  call('PERSIST', T .. 'm:' .. R)
  return call('ZADD', T .. 'u:' .. R, 0, user) == 1
end

-- Takes a connection out; the user and how many connections the user has left, or nil when it wasn't in.
local function depart(R, inc, conn)
  local key = T .. 'n:' .. R .. ':' .. inc
  local user = call('HGET', key, conn)
  if not user then return nil end
  call('HDEL', key, conn)
  if call('EXISTS', key) == 0 then call('SREM', T .. 'N:' .. inc, R) end
  return user, call('HINCRBY', T .. 'k:' .. R, user, -1)
end

-- The user has left: nobody and no grace holds the place any more.
local function vacate(R, user)
  local name = call('HGET', T .. 'w:' .. R, user) or user
  call('HDEL', T .. 'k:' .. R, user)
  call('HDEL', T .. 'w:' .. R, user)
  if call('ZREM', T .. 'u:' .. R, user) == 1 then
    change(R, 'L', user, name)
    linger(R)
    return 1
  end
  return 0
end

-- total, version, then at most limit ids, user's own among them.
local function roster(reply, R, limit, user)
  local total = call('ZCARD', T .. 'u:' .. R)
  reply[#reply + 1] = total
  reply[#reply + 1] = call('HGET', T .. 'm:' .. R, 'v') or '0'
  if limit > 0 then
    local users = call('ZRANGE', T .. 'u:' .. R, 0, limit - 1)
    if user and total > limit and call('ZRANK', T .. 'u:' .. R, user) >= limit then users[limit] = user end
    for i = 1, #users do reply[#reply + 1] = users[i] end
  end
  return reply
end
