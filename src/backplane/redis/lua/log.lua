-- What the scripts about a room's log share. R is the room's name in base64url.
--
-- m:R  hash: e epoch, s last seq, r replid, pe and ps the epoch before and where it ended, v version of the membership
-- h:R  stream of messages, ids seq-0: e epoch, t time, r record

local REPLID
local function replid()
  REPLID = REPLID or string.match(call('INFO', 'replication'), 'master_replid:(%x+)') or '?'
  return REPLID
end

-- The room's numbering, begun if there is none. When Redis was restarted, restored or promoted since (its replid tells),
-- the tail may be lost: a new epoch counts on from where the surviving data ends, and the old one's end is kept.
local function open(R)
  local key = T .. 'm:' .. R
  local m = call('HMGET', key, 'e', 's', 'r', 'pe', 'ps')
  if not m[1] then
    call('DEL', T .. 'h:' .. R, T .. 'p:' .. R)
    call('HSET', key, 'e', FRESH, 's', '0', 'r', replid())
    call('PEXPIRE', key, TTL)
    return { e = FRESH, s = 0, pe = '', ps = '0' }
  end
  if m[3] ~= replid() then
    local pe, ps = m[1], m[2]
    -- An epoch in which nothing was said was told to few: the one before it, which ended at the same place, is kept instead.
    if m[5] == m[2] then pe = m[4] end
    call('HSET', key, 'e', FRESH, 'r', replid(), 'pe', pe, 'ps', ps)
    return { e = FRESH, s = tonumber(m[2]), pe = pe, ps = ps }
  end
  return { e = m[1], s = tonumber(m[2]), pe = m[4] or '', ps = m[5] or '0' }
end

-- The lowest seq that readers may see. The stream is trimmed in whole blocks and may hold more than HISTORY.
local function oldest(R, seq)
  local first = call('XRANGE', T .. 'h:' .. R, '-', '+', 'COUNT', 1)[1]
  if not first then return seq + 1 end
  return math.max(tonumber(string.match(first[1], '^%d+')), seq - HISTORY + 1)
end

-- A room is forgotten only when it is silent and empty for the whole TTL.
local function linger(R)
  if call('EXISTS', T .. 'u:' .. R) == 1 then
    call('PERSIST', T .. 'm:' .. R)
  else
    call('PEXPIRE', T .. 'm:' .. R, TTL)
  end
end
