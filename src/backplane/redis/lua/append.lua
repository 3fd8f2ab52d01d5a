-- Appends messages to rooms: for each, removes duplicates, gives the seq, keeps and publishes it.
--
-- i:=C        the answer to call C, packed
-- i:R:U:I     where the send of user U that is named I got its place: id, seq, epoch, time, parted by spaces
--
-- ARGV[5]  milliseconds a send is remembered
-- ARGV[6]  milliseconds messages are kept after the room's last one
-- ARGV[7]  a name of this call's own, if any of its messages has no name; or nothing
-- ARGV[8…] for each room: its partition's tag (in a cluster it is KEYS[1] for all), the room in base64url, the number of its
--          messages, and for each of these two: id (36 characters) and U:I, or nothing; the record
-- Returns the time; then for each room its epoch, and for each of its messages the seq; or, as a text, 1 and where a duplicate
-- has its place (as in i:R:U:I), or ! and why it was refused.
-- Atomic, all of them; a room's messages get their places in the order of the call. When one is refused, so are those behind it
-- in its room, and no others. Repeating it changes nothing within the first time; where a message has no name, within 15 s: that
-- is for the client library, which may send a call again when slots move.
local REMEMBER, KEEP = ARGV[5], ARGV[6]
local answered = ARGV[7] ~= '' and T .. 'i:=' .. ARGV[7]
if answered then
  local before = call('GET', answered)
  if before then return cmsgpack.unpack(before) end
end

local now = int(NOW)
-- How long things are kept is seen to once in a while, and then for that while longer: so they are never kept for less. The
-- room has a note of the last while, and of what it was seen to be: it may be another one now.
local while_ms = math.max(1, math.floor(math.min(tonumber(KEEP), tonumber(TTL)) / 64))
local seen_to = int(math.floor(NOW / while_ms)) .. ' ' .. KEEP .. ' ' .. TTL

-- The keys under which named messages are remembered, each at its message's place in ARGV; and what is known under them.
local key_at, keys, said = {}, {}, {}
local at = 8
while ARGV[at] do
  local last = at + 2 + 2 * ARGV[at + 2]
  for i = at + 3, last, 2 do
    if ARGV[i] ~= '' then
      key_at[i] = ARGV[at] .. 'i:' .. ARGV[at + 1] .. ':' .. string.sub(ARGV[i], 37)
      keys[#keys + 1] = key_at[i]
    end
  end
  at = last + 1
end
if keys[1] then
  for n, place in ipairs(call('MGET', unpack(keys))) do
    if place then said[keys[n]] = '1 ' .. place end
  end
end

-- How many of a room's messages were not said before.
local function count_new(first, last)
  local count, counted = 0, {}
  for i = first, last, 2 do
    local key = key_at[i]
    if not key or not (said[key] or counted[key]) then count = count + 1 end
    if key then counted[key] = true end
  end
  return count
end

local answers, filled = { now }, 1

-- One room's messages; fills their answers as far as it comes.
local function append(at, last)
  T = ARGV[at]
  local R = ARGV[at + 1]
  local new = keys[1] and count_new(at + 3, last) or ARGV[at + 2]
  local room, log, feed = T .. 'm:' .. R, T .. 'h:' .. R, T .. 'r:' .. R
  local epoch, seq, due, says
  if new ~= 0 then
    local _, seen
    epoch, _, seen = open(R)
    due = seen ~= seen_to
    -- The room's numbering moves on for all of them at once. It is the first that is written: a Redis without memory refuses
    -- here, before anything has changed.
    seq = call('HINCRBY', room, 's', new) - new
    answers[filled] = epoch
    says = ' ' .. epoch .. ' ' .. now
  end
  for i = at + 3, last, 2 do
    local key = key_at[i]
    local answer = key and said[key]
    if not answer then
      seq = seq + 1
      answer = seq
      local number, record = int(seq), ARGV[i + 1]
      local done = redis.pcall('XADD', log, 'MAXLEN', '~', ARGV[3], number .. '-0', 'e', epoch, 't', now, 'r', record)
      if type(done) == 'table' then
        -- A stream that is ahead of its numbering is a leftover; anything else is no reason to throw a log away.
        if not string.find(done.err, 'equal or smaller', 1, true) then error(done.err, 0) end
        call('DEL', log)
        call('XADD', log, number .. '-0', 'e', epoch, 't', now, 'r', record)
        due = true
      end
      if due then
        call('PEXPIRE', log, int(KEEP + while_ms))
        linger(R)
        call('HSET', room, 'x', seen_to)
        due = false
      end
      if key then
        local place = string.sub(ARGV[i], 1, 36) .. ' ' .. number .. says
        call('SET', key, place, 'PX', REMEMBER)
        said[key] = '1 ' .. place
      end
      -- It has its place by now: where it can't be published, nodes find it when they compare heads.
      redis.pcall(PUB, feed, 'M' .. number .. says .. '\n' .. record)
    end
    filled = filled + 1
    answers[filled] = answer
  end
end

at = 8
while ARGV[at] do
  local last = at + 2 + 2 * ARGV[at + 2]
  filled = filled + 1
  answers[filled] = ''
  local head = filled
  local done, why = pcall(append, at, last)
  if not done then
    why = '! ' .. tostring(type(why) == 'table' and why.err or why)
    for i = at + 3 + 2 * (filled - head), last, 2 do
      filled = filled + 1
      answers[filled] = key_at[i] and said[key_at[i]] or why
      why = '! a message before it in its room was refused'
    end
  end
  at = last + 1
end
-- A Redis that refuses this has taken none of the messages: there is nothing to remember.
if answered then redis.pcall('SET', answered, cmsgpack.pack(answers), 'PX', 15000) end
return answers
