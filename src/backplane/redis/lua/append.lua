-- Appends messages to rooms of one partition: for each, removes duplicates, gives the seq, keeps and publishes it.
--
-- ARGV[5]  milliseconds a send is remembered
-- ARGV[6]  milliseconds messages are kept after the room's last one
-- ARGV[7…] for each message: room, user, key (all base64url; = and a name of this call's own: none), id, record
-- Returns for each message a line: 0 or 1 (duplicate), id, seq, epoch, time, parted by spaces.
-- Atomic, all of them; messages of a call get their places in its order. Repeating it changes nothing within the first
-- time; where there is no key, within 15 s: that is for the client library, which may send a call again when slots move.
local rooms, places, now = {}, {}, int(NOW)
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
for i = 7, #ARGV, 5 do
  local R, key = ARGV[i], T .. 'i:' .. ARGV[i] .. ':' .. ARGV[i + 1] .. ':' .. ARGV[i + 2]
  local ms = string.sub(ARGV[i + 2], 1, 1) == '=' and 15000 or ARGV[5]
  local first = call('GET', key)
  if first then
    places[#places + 1] = '1 ' .. first
  else
    local m = rooms[R]
    if not m then
      m = open(R)
      m.due = is_due(m.x)
      rooms[R] = m
    end
    local seq = int(m.s + 1)
    local id = seq .. '-0'
    -- First of all, for a Redis without memory refuses here, before anything has changed.
    call('HSET', T .. 'm:' .. R, 's', seq)
    m.s = m.s + 1
    local add = { 'XADD', T .. 'h:' .. R, 'MAXLEN', '~', HISTORY, id, 'e', m.e, 't', now, 'r', ARGV[i + 4] }
    local done = redis.pcall(unpack(add))
    if type(done) == 'table' and done.err then
      -- A stream that is ahead of its numbering is a leftover; anything else is no reason to throw a log away.
      if not string.find(done.err, 'equal or smaller', 1, true) then return redis.error_reply(done.err) end
      call('DEL', T .. 'h:' .. R)
      call(unpack(add))
      m.due = true
    end
    -- At once, for a later message may end the script.
    if m.due then
      call('PEXPIRE', T .. 'h:' .. R, int(ARGV[6] + while_ms))
      linger(R)
      call('HSET', T .. 'm:' .. R, 'x', now .. ' ' .. kept)
      m.due = false
    end
    local place = ARGV[i + 3] .. ' ' .. seq .. ' ' .. m.e .. ' ' .. now
    call('SET', key, place, 'PX', ms)
    call(PUB, T .. 'r:' .. R, 'M' .. seq .. ' ' .. m.e .. ' ' .. now .. '\n' .. ARGV[i + 4])
    places[#places + 1] = '0 ' .. place
  end
end
return places
