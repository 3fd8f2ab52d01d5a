-- What the scripts about a room's log share. R is the room's name in base64url.
--
-- m:R  hash: e epoch, s last seq, r replid, 1 to 8 the epochs before (newest first, each with where it ended), v version of
--      the membership, x in which while an append last saw to how long the log and the
--      numbering are kept, and how long that was: three numbers
-- h:R  stream of messages, ids seq-0: e epoch, t time, r record

-- Half of it is the server's: a call that is sent again, to a server without what the first one did, begins another epoch.
local function fresh() return string.sub(FRESH, 1, 8) .. string.sub(replid(), 1, 4) end

local KEPT = { '1', '2', '3', '4', '5', '6', '7', '8' }

-- The epochs before, newest first, each as the text 'epoch end'.
local function past(R)
  local ended = {}
  local kept = call('HMGET', T .. 'm:' .. R, unpack(KEPT))
  for i = 1, #KEPT do ended[#ended + 1] = kept[i] or nil end
  return ended
end

-- An epoch has ended. When there are too many, one goes in which nothing was said: it was told to few.
local function bury(R, epoch, seq)
  local ended = past(R)
  table.insert(ended, 1, epoch .. ' ' .. seq)
  if #ended > #KEPT then
    local gone = #ended
    for i = #ended - 1, 2, -1 do
      if string.match(ended[i], ' .*') == string.match(ended[i + 1], ' .*') then
        gone = i
        break
      end
    end
    table.remove(ended, gone)
  end
  for i = 1, #ended do call('HSET', T .. 'm:' .. R, KEPT[i], ended[i]) end
end

-- The room's numbering, begun if there is none. When Redis was restarted, restored or promoted since (its replid tells),
-- the tail may be lost: a new epoch counts on from where the surviving data ends, and the old one's end is kept.
-- Returns its epoch, its last seq, and its x where that still holds.
local function open(R)
  local key = T .. 'm:' .. R
  local m = call('HMGET', key, 'e', 's', 'r', 'x')
  if not m[1] then
    call('DEL', T .. 'h:' .. R, T .. 'p:' .. R)
    call('HSET', key, 'e', fresh(), 's', '0', 'r', replid())
    call('PEXPIRE', key, TTL)
    return fresh(), 0
  end
  if m[3] ~= replid() then
    bury(R, m[1], m[2])
    call('HSET', key, 'e', fresh(), 'r', replid())
    return fresh(), tonumber(m[2])
  end
  return m[1], tonumber(m[2]), m[4]
end

-- The lowest seq that readers may see. The stream is trimmed in whole blocks and may hold more than HISTORY.
local function oldest(R, seq)
  local first = call('XRANGE', T .. 'h:' .. R, '-', '+', 'COUNT', 1)[1]
  if not first then return seq + 1 end
  return math.max(tonumber(string.match(first[1], '^%d+')), seq - HISTORY + 1)
end

-- The room of broadcasts in base64url. Its listeners are no members, and must not be told of a loss because it was silent.
local BROADCAST = 'YnJvYWRjYXN0'

-- A room is forgotten only when it is silent and empty for the whole TTL. It is kept for a 64th longer, so that not every
-- append has to see to it.
local function linger(R)
  if R == BROADCAST or call('EXISTS', T .. 'u:' .. R) == 1 then
    call('PERSIST', T .. 'm:' .. R)
  else
    call('PEXPIRE', T .. 'm:' .. R, int(TTL + TTL / 64))
  end
end
