-- Takes one step of removing the texts of deleted and edited messages from the logs of a partition, if
-- one is due.
--
-- ARGV[5]  the name of the archive behind the logs; empty: none
-- ARGV[6]  the most entries of a step
-- ARGV[7]  the bytes of records after which a step ends
--
-- Returns the number of texts that the step has left out, 1 if another step may be due, and 1 if a log
-- was replaced. Each step is atomic, and any node may take it.
--
-- A stream keeps the bytes of entries that are deleted in it, so the log is copied without the texts to
-- z:<room>, step by step, and then replaced by the copy. Until then readers and appends use the log as
-- it is. Entries keep their ids, and a message without its text keeps its place: readers get it from
-- its form. Entries that readers can't see are not copied.
local ctx = context()
local has_archive = ARGV[5] ~= ''
local max_entries, max_bytes = ARGV[6], tonumber(ARGV[7])
-- A copy that no step continues is dropped after this time.
local COPY_MS = '600000'

local scrubs = key(ctx.tag, SCRUBS, '')
local member = call('ZRANGEBYSCORE', scrubs, '-inf', int(ctx.now), 'LIMIT', 0, 1)[1]
if not member then return { 0, 0, 0 } end
local room = string.match(member, '^[^:]+')
local log, copy = key(ctx.tag, LOG, room), key(ctx.tag, COPY, room)
-- A copy that has begun. A message that is deleted meanwhile may be in it with its text: then append.lua
-- adds the room again, for another copy.
local begun = room .. ':'
if member ~= begun then
  -- A Redis without memory refuses this write, before anything is removed.
  call('ZADD', scrubs, 'NX', call('ZSCORE', scrubs, room), begun)
  call('ZREM', scrubs, room)
  call('DEL', copy)
end

local function seq_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

local function first_of(stream) return call('XRANGE', stream, '-', '+', 'COUNT', 1)[1] end

local function last_of(stream) return call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1] end

-- The lowest seq that readers can see.
local function first_visible()
  local fields = call('HMGET', key(ctx.tag, NUMBERING, room), 's', 'a')
  local hidden = tonumber(fields[1] or '0') - ctx.history_size
  if has_archive then hidden = math.min(hidden, tonumber(fields[2] or '0')) end
  return math.max(0, hidden) + 1
end

-- Whether the message has a form with a content of its own, or is deleted.
local function is_changed(form)
  return form and string.match(form, '^%d+ %d+ %d+ %S+ %d+ (%a)') ~= 'O'
end

-- Removes the texts of changed messages from these entries. Returns their number.
local function remove_texts(entries)
  local messages, seqs = {}, {}
  for i = 1, #entries do
    local fields = entries[i][2]
    if (fields[5] == 'm' or fields[5] == 'r') and fields[6] ~= '' then
      messages[#messages + 1] = fields
      seqs[#seqs + 1] = string.match(entries[i][1], '^%d+')
    end
  end
  if not seqs[1] then return 0 end
  local removed = 0
  local forms = call('HMGET', key(ctx.tag, FORMS, room), unpack(seqs))
  for i = 1, #messages do
    if is_changed(forms[i]) then
      messages[i][6] = ''
      removed = removed + 1
    end
  end
  return removed
end

local first, last = first_of(log), last_of(log)
if not first then
  call('DEL', copy)
  call('ZREM', scrubs, begun)
  return { 0, 1, 0 }
end
local copied = last_of(copy)
local from = copied and seq_of(copied) + 1 or math.min(first_visible(), seq_of(last))
local entries = call('XRANGE', log, int(from) .. '-0', '+', 'COUNT', max_entries)
local bytes, count = 0, 0
while count < #entries and bytes < max_bytes do
  count = count + 1
  bytes = bytes + #entries[count][2][6]
end
for i = count + 1, #entries do entries[i] = nil end
local removed = remove_texts(entries)
for i = 1, count do call('XADD', copy, entries[i][1], unpack(entries[i][2])) end
local copied_to = count > 0 and entries[count][1] or copied and copied[1]
if copied_to ~= last[1] then
  call('PEXPIRE', copy, COPY_MS)
  return { removed, 1, 0 }
end
-- Retention may have removed entries since they were copied.
if has_archive then call('XTRIM', copy, 'MINID', '=', first[1]) end
local lifetime_ms = call('PTTL', log)
call('RENAME', copy, log)
if lifetime_ms > 0 then call('PEXPIRE', log, lifetime_ms) else call('PERSIST', log) end
call('ZREM', scrubs, begun)
return { removed, 1, 1 }
