-- Removes the texts of deleted and edited messages from one log of a partition, if one is due.
--
-- ARGV[5]  the name of the archive behind the logs; empty: none
--
-- Returns the number of texts removed, and 1 if another log may be due. Atomic: the log is written
-- anew, because a stream keeps the bytes of entries that are deleted in it. Entries keep their ids, and
-- a message without its text keeps its place: readers get it from its form. Entries that readers can't
-- see are dropped.
local ctx = context()
local has_archive = ARGV[5] ~= ''

local scrubs = key(ctx.tag, SCRUBS, '')
local room = call('ZRANGEBYSCORE', scrubs, '-inf', int(ctx.now), 'LIMIT', 0, 1)[1]
if not room then return { 0, 0 } end
-- A Redis without memory refuses this write, before anything is removed.
call('ZADD', scrubs, int(ctx.now), room)

-- The seqs of messages whose forms have a content of their own, or are tombstones.
local function changed_messages()
  local changed = {}
  local forms = call('HGETALL', key(ctx.tag, FORMS, room))
  for i = 1, #forms, 2 do
    local letter = string.match(forms[i + 1], '^%d+ %d+ %d+ %S+ %d+ (%a)')
    if letter ~= 'O' then changed[forms[i]] = true end
  end
  return changed
end

-- The lowest seq that readers can see.
local function first_visible()
  local fields = call('HMGET', key(ctx.tag, NUMBERING, room), 's', 'a')
  local seq = tonumber(fields[1] or '0')
  local hidden = seq - ctx.history_size
  if has_archive then hidden = math.min(hidden, tonumber(fields[2] or '0')) end
  return math.max(0, hidden) + 1
end

local log = key(ctx.tag, LOG, room)
local first = first_visible()
local entries = call('XRANGE', log, '-', '+')
local changed, removed = changed_messages(), 0
for i = 1, #entries do
  local seq, fields = string.match(entries[i][1], '^%d+'), entries[i][2]
  local is_message = fields[5] == 'm' or fields[5] == 'r'
  if tonumber(seq) < first then
    entries[i] = false
    removed = removed + 1
  elseif is_message and changed[seq] and fields[6] ~= '' then
    fields[6] = ''
    removed = removed + 1
  end
end
if removed > 0 then
  local lifetime_ms = call('PTTL', log)
  call('DEL', log)
  for i = 1, #entries do
    if entries[i] then call('XADD', log, entries[i][1], unpack(entries[i][2])) end
  end
  if lifetime_ms > 0 then call('PEXPIRE', log, lifetime_ms) end
end
call('ZREM', scrubs, room)
return { removed, 1 }
