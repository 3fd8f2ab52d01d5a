-- Shared by the scripts about the members of rooms of the call's partition; requires log.lua and
-- presence.lua. Rooms are given by their names in base64url.
--
-- u:<room>                sorted set of the members' ids, all with score 0 and so in the order of
--                         their bytes
-- k:<room>                hash: user → number of the user's connections in the room
-- w:<room>                hash: user → name
-- n:<room>:<incarnation>  hash: connection → user, for the connections of a node's incarnation
-- p:<room>                stream of the last 100 changes. Ids are version-0. Fields: k kind, u
--                         user, n name, t total, p previous version
local CONNECTION_COUNTS, NAMES, CONNECTIONS = 'k:', 'w:', 'n:'

-- The member of the sorted set of graces that stands for the user in the room.
local function grace_of(room, user) return room .. ':' .. user end

local function connections_key(ctx, room, incarnation)
  return key(ctx.tag, CONNECTIONS, room) .. ':' .. incarnation
end

-- Assigns a version to a change of the membership, stores the change and publishes it. Kinds: J
-- joined, L left, R restored.
local function publish_change(ctx, room, kind, user, name)
  local previous = tonumber(call('HGET', key(ctx.tag, NUMBERING, room), 'v') or '0')
  local version = math.max(previous + 1, ctx.now)
  local total = call('ZCARD', key(ctx.tag, MEMBERS, room))
  call('HSET', key(ctx.tag, NUMBERING, room), 'v', int(version))
  call('XADD', key(ctx.tag, CHANGES, room), 'MAXLEN', '=', 100, int(version) .. '-0',
    'k', kind, 'u', user, 'n', name, 't', total, 'p', int(previous))
  call('PEXPIRE', key(ctx.tag, CHANGES, room), ctx.ttl_ms)
  local head = { int(version), int(previous), kind, total, #user }
  local payload = 'C' .. table.concat(head, ' ') .. '\n' .. user .. name
  call(ctx.publish, key(ctx.tag, CHANNEL, room), payload)
end

-- Adds a connection to the room, whose numbering must exist. Returns true if that made the user a
-- member.
local function add_connection(ctx, room, incarnation, conn, user, name)
  if call('HSETNX', connections_key(ctx, room, incarnation), conn, user) == 1 then
    call('HINCRBY', key(ctx.tag, CONNECTION_COUNTS, room), user, 1)
    call('SADD', held_key(ctx, incarnation), room)
  end
  call('ZREM', key(ctx.tag, GRACES, ''), grace_of(room, user))
  call('HSET', key(ctx.tag, NAMES, room), user, name)
  call('PERSIST', key(ctx.tag, NUMBERING, room))
  return call('ZADD', key(ctx.tag, MEMBERS, room), 0, user) == 1
end

-- Removes a connection from the room. Returns its user and the number of connections that the user
-- still has in the room, or nil if the connection wasn't in it.
local function remove_connection(ctx, room, incarnation, conn)
  local connections = connections_key(ctx, room, incarnation)
  local user = call('HGET', connections, conn)
  if not user then return nil end
  call('HDEL', connections, conn)
  if call('EXISTS', connections) == 0 then call('SREM', held_key(ctx, incarnation), room) end
  return user, call('HINCRBY', key(ctx.tag, CONNECTION_COUNTS, room), user, -1)
end

-- Whether the user's grace in the room is running.
local function has_grace(ctx, room, user)
  return call('ZSCORE', key(ctx.tag, GRACES, ''), grace_of(room, user))
end

-- Removes a member that has neither a connection nor a grace in the room any more. Returns the
-- number of changes published.
local function remove_member(ctx, room, user)
  local name = call('HGET', key(ctx.tag, NAMES, room), user) or user
  call('HDEL', key(ctx.tag, CONNECTION_COUNTS, room), user)
  call('HDEL', key(ctx.tag, NAMES, room), user)
  if call('ZREM', key(ctx.tag, MEMBERS, room), user) == 1 then
    publish_change(ctx, room, 'L', user, name)
    renew_numbering(ctx, ctx.tag, room, false)
    return 1
  end
  return 0
end

-- Appends to the reply: the number of members, the version of the membership, and at most limit
-- ids. If a user is given, its id is among them.
local function add_roster(ctx, reply, room, limit, user)
  local total = call('ZCARD', key(ctx.tag, MEMBERS, room))
  reply[#reply + 1] = total
  reply[#reply + 1] = call('HGET', key(ctx.tag, NUMBERING, room), 'v') or '0'
  if limit > 0 then
    local users = call('ZRANGE', key(ctx.tag, MEMBERS, room), 0, limit - 1)
    if user and total > limit and call('ZRANK', key(ctx.tag, MEMBERS, room), user) >= limit then
      users[limit] = user
    end
    for i = 1, #users do reply[#reply + 1] = users[i] end
  end
  return reply
end
