-- Put in front of every script.
--
-- KEYS[1]  the partition's hash tag, such as {c17}: every key that a script touches begins with it and so lies in its slot;
--          names are built here, because one call may serve many rooms or users of the partition
-- KEYS[2]  another name of that slot; neither is ever a key. While a cluster moves the slot, a server that doesn't have a
--          call's keys sends it on to the one that receives them; that one takes a single key for a new one and would run
--          the script without the data, but refuses two that it lacks (TRYAGAIN), and the caller tries again
-- ARGV[1]  PUBLISH, or SPUBLISH in a cluster
-- ARGV[2]  hexadecimal digits never used before, for the name of an epoch
-- ARGV[3]  messages kept for a room
-- ARGV[4]  milliseconds that an empty room or an offline user is remembered
-- A script's own arguments begin at ARGV[5].
local T, PUB, FRESH, HISTORY, TTL = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local call = redis.call

-- Redis's clock is the only one.
local function clock()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local NOW = clock()

-- Lua would write large numbers as 1e+15.
local function int(n) return string.format('%.0f', n) end

-- The name of the history that this server's data is part of. It is another one after every restart and promotion, and
-- never an earlier one again.
local REPLID
local function replid()
  if not REPLID then
    local info = call('INFO', 'replication')
    local _, before = string.find(info, 'master_replid:', 1, true)
    REPLID = before and string.match(info, '^%x+', before + 1)
  end
  -- Without it a loss couldn't be told from none.
  assert(REPLID, 'this server does not name the history of its data (master_replid)')
  return REPLID
end

-- A reaped incarnation must not write again: what it says is about connections that were given up for it.
local function fenced(inc) return call('ZSCORE', T .. 'F', inc) end
local FENCED = 'FENCED the incarnation was reaped'
local function fence(inc)
  call('ZADD', T .. 'F', int(NOW), inc)
  -- A day is longer than any node can sleep with its clients still connected.
  call('ZREMRANGEBYSCORE', T .. 'F', '-inf', int(NOW - 86400000))
end

-- A grace only ever grows.
local function grace(member, ms)
  local due = NOW + ms
  local old = call('ZSCORE', T .. 'g', member)
  if not old or tonumber(old) < due then call('ZADD', T .. 'g', int(due), member) end
end
