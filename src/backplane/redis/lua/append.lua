-- Appends messages to rooms: for each, removes duplicates, gives the seq, keeps and publishes it.
--
-- ARGV[5]  milliseconds a send is remembered
-- ARGV[6]  milliseconds messages are kept after the room's last one
-- ARGV[7…] for each message: its partition's tag (in a cluster it is KEYS[1] for all), room, user, key (the three base64url;
--          = and a name of this call's own: none), id, record
-- Returns for each message a line: 0 or 1 (duplicate), id, seq, epoch, time, parted by spaces; or ! and why it was refused.
-- Atomic, all of them; messages of a call get their places in its order. When one is refused, so are those behind it in its
-- room, and no others. Repeating it changes nothing within the first time; where there is no key, within 15 s: that is for
-- the client library, which may send a call again when slots move.
local WIDTH = 6
local now = int(NOW)
-- How long things are kept is seen to once in a while, and then for that while longer: so they are never kept for less. What it
-- was seen to be is noted, as it may be another one now.
local while_ms = math.floor(math.min(tonumber(ARGV[6]), tonumber(TTL)) / 64)
local kept = ARGV[6] .. ' ' .. TTL
local function is_due(seen_to)
  local at, then_kept = string.match(seen_to or '', '^(%d+) (.*)$')
  if then_kept ~= kept then return true end
  at = tonumber(at)
  return at > NOW or at + while_ms <= NOW
end

-- Which were said before, by the names under which they are remembered; and how many are new in each room.
local names, fresh_in = {}, {}
for i = 7, #ARGV, WIDTH do
  names[#names + 1] = ARGV[i] .. 'i:' .. ARGV[i + 1] .. ':' .. ARGV[i + 2] .. ':' .. ARGV[i + 3]
end
local said = {}
for n, place in ipairs(call('MGET', unpack(names))) do
  local R = ARGV[7 + (n - 1) * WIDTH + 1]
  if place then
    said[names[n]] = '1 ' .. place
  elseif said[names[n]] == nil then
    said[names[n]] = false
    fresh_in[R] = (fresh_in[R] or 0) + 1
  end
end

local rooms = {}
-- The room's numbering, moved on for all of its new messages at once. It is the first that is written: a Redis without memory
-- refuses here, before anything has changed.
local function numbering(R)
  local m = open(R)
  m.due = is_due(m.x)
  call('HSET', T .. 'm:' .. R, 's', int(m.s + fresh_in[R]))
  return m
end

local BEHIND = 'a message before it in its room was refused'

local function append(i, name)
  T = ARGV[i]
  local R = ARGV[i + 1]
  local m = rooms[R]
  if not m then
    rooms[R] = { refused = BEHIND }
    m = numbering(R)
    rooms[R] = m
  end
  if m.refused then error(m.refused, 0) end
  -- Until it has its place.
  m.refused = BEHIND
  m.s = m.s + 1
  local seq = int(m.s)
  local add = { 'XADD', T .. 'h:' .. R, 'MAXLEN', '~', HISTORY, seq .. '-0', 'e', m.e, 't', now, 'r', ARGV[i + 5] }
  local done = redis.pcall(unpack(add))
  if type(done) == 'table' and done.err then
    -- A stream that is ahead of its numbering is a leftover; anything else is no reason to throw a log away.
    if not string.find(done.err, 'equal or smaller', 1, true) then error(done.err, 0) end
    call('DEL', T .. 'h:' .. R)
    call(unpack(add))
    m.due = true
  end
  if m.due then
    call('PEXPIRE', T .. 'h:' .. R, int(ARGV[6] + while_ms))
    linger(R)
    call('HSET', T .. 'm:' .. R, 'x', now .. ' ' .. kept)
    m.due = false
  end
  local place = ARGV[i + 4] .. ' ' .. seq .. ' ' .. m.e .. ' ' .. now
  call('SET', name, place, 'PX', string.sub(ARGV[i + 3], 1, 1) == '=' and 15000 or ARGV[5])
  call(PUB, T .. 'r:' .. R, 'M' .. seq .. ' ' .. m.e .. ' ' .. now .. '\n' .. ARGV[i + 5])
  m.refused = nil
  said[name] = '1 ' .. place
  return '0 ' .. place
end

local places = {}
for n, name in ipairs(names) do
  local place = said[name]
  if not place then
    local done, answer = pcall(append, 7 + (n - 1) * WIDTH, name)
    place = done and answer or '! ' .. tostring(type(answer) == 'table' and answer.err or answer)
  end
  places[n] = place
end
return places
