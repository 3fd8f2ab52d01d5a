-- Appends messages to rooms of one partition: for each, removes duplicates, gives the seq, keeps and publishes it.
--
-- ARGV[5]  milliseconds a send is remembered
-- ARGV[6]  milliseconds messages are kept after the room's last one
-- ARGV[7…] for each message: room, user, key (all base64url; nothing: none; = and a name of this call's own: none, but in a
--          cluster), id, record
-- Returns for each message a line: 0 or 1 (duplicate), id, seq, epoch, time, parted by spaces.
-- Atomic, all of them; messages of a call get their places in its order. Repeating it changes nothing within the first
-- time; where there is no key, within 15 s: that is for the client library, which may send a call again when slots move.
local rooms, places, now = {}, {}, int(NOW)
-- What is kept for a time is seen to once in a while, and then for that while longer: so it is never kept for less.
local while_ms = math.floor(math.min(tonumber(ARGV[6]), tonumber(TTL)) / 64)
for i = 7, #ARGV, 5 do
  local R, key = ARGV[i], T .. 'i:' .. ARGV[i] .. ':' .. ARGV[i + 1] .. ':' .. ARGV[i + 2]
  local keyed = ARGV[i + 2] ~= ''
  local first = keyed and call('GET', key)
  if first then
    places[#places + 1] = '1 ' .. first
  else
    local m = rooms[R]
    if not m then
      m = open(R)
      m.due = not m.x or m.x > NOW or m.x + while_ms <= NOW
      rooms[R] = m
    end
    local seq = int(m.s + 1)
    local id = seq .. '-0'
    -- First of all, for a Redis without memory refuses here, before anything has changed.
    if m.due then
      call('HSET', T .. 'm:' .. R, 's', seq, 'x', now)
    else
      call('HSET', T .. 'm:' .. R, 's', seq)
    end
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
    local place = ARGV[i + 3] .. ' ' .. seq .. ' ' .. m.e .. ' ' .. now
    if keyed then
      call('SET', key, place, 'PX', string.sub(ARGV[i + 2], 1, 1) == '=' and 15000 or ARGV[5])
    end
    call(PUB, T .. 'r:' .. R, 'M' .. seq .. ' ' .. m.e .. ' ' .. now .. '\n' .. ARGV[i + 4])
    places[#places + 1] = '0 ' .. place
  end
end
for R, m in pairs(rooms) do
  if m.due then
    call('PEXPIRE', T .. 'h:' .. R, int(ARGV[6] + while_ms))
    linger(R)
  end
end
return places
