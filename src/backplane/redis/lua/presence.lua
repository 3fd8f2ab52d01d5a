-- Shared by the scripts about presence: incarnations of nodes, and graces.
--
-- N:<incarnation>  set of the partition's rooms or users that have connections of that incarnation
-- F                sorted set of fenced incarnations, by the time at which they were fenced
-- g                sorted set of running graces (of a user, or of a room and a user) by their end
local HELD, FENCED, GRACES = 'N:', 'F', 'g'

local function held_key(ctx, incarnation) return key(ctx.tag, HELD, incarnation) end

-- Whether an incarnation of a node was fenced, which is the first step of reaping it. It must not
-- write any more: its writes are about connections that are being removed.
local function is_fenced(ctx, incarnation)
  return call('ZSCORE', key(ctx.tag, FENCED, ''), incarnation)
end

-- The error for a fenced incarnation. Nodes recognise it by the first word.
local function fenced_error() return redis.error_reply('FENCED the incarnation was reaped') end

local function fence(ctx, incarnation)
  call('ZADD', key(ctx.tag, FENCED, ''), int(ctx.now), incarnation)
  -- Fences are kept for a day: longer than a node can be suspended with its clients still
  -- connected.
  call('ZREMRANGEBYSCORE', key(ctx.tag, FENCED, ''), '-inf', int(ctx.now - 86400000))
end

-- Begins a grace, or prolongs the one that is running; never shortens it. The member is a user, or
-- room:user.
local function begin_grace(ctx, member, grace_ms)
  local due = ctx.now + grace_ms
  local graces = key(ctx.tag, GRACES, '')
  local old = call('ZSCORE', graces, member)
  if not old or tonumber(old) < due then call('ZADD', graces, int(due), member) end
end

-- Milliseconds until the partition's next grace ends, as text: 0 if it has ended already, -1 if
-- there is none.
local function until_next_grace(ctx)
  local first = call('ZRANGE', key(ctx.tag, GRACES, ''), 0, 0, 'WITHSCORES')[2]
  return first and int(math.max(0, first - ctx.now)) or '-1'
end
