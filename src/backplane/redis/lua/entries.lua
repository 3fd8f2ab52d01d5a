-- Shared by the scripts that return entries of a log; requires log.lua.

-- A stream entry is { id, { 'e', epoch, 't', time, letter, record } }.

-- The number of the first entries of `found` whose records have at most max_bytes bytes in total; at
-- least one.
local function count_within(found, max_bytes)
  local taken, bytes = 0, 0
  for i = 1, #found do
    bytes = bytes + #found[i][2][6]
    if i > 1 and bytes > max_bytes then break end
    taken = i
  end
  return taken
end

-- Appends entries of a stream to the reply, in ascending order: for each its seq, epoch, time, the
-- letter of its kind, and record. Takes the first ones of `found` whose records have at most
-- max_bytes bytes in total, and at least one. `is_descending`: the order of `found`.
local function add_entries(reply, found, is_descending, max_bytes)
  local taken = count_within(found, max_bytes)
  for i = 1, taken do
    local entry = found[is_descending and taken + 1 - i or i]
    local fields = entry[2]
    reply[#reply + 1] = string.match(entry[1], '^%d+')
    reply[#reply + 1] = fields[2]
    reply[#reply + 1] = fields[4]
    reply[#reply + 1] = fields[5]
    reply[#reply + 1] = fields[6]
  end
  return reply
end

-- The entries of the log after a seq, at most `limit`. `last_seq`: the room's last seq, as text; false
-- if the room isn't known.
local function entries_after(ctx, room, after, last_seq, limit)
  if limit < 1 or after >= tonumber(last_seq or '0') then return {} end
  local log = key(ctx.tag, LOG, room)
  return call('XRANGE', log, int(after + 1) .. '-0', last_seq .. '-0', 'COUNT', int(limit))
end

-- Appends to the reply the number of forms that the entries of add_entries need, and these forms: of
-- the messages among them that were changed, and of those that they point to. Also the forms of the
-- messages with the numbers `others`.
local function add_forms(ctx, reply, room, found, max_bytes, others)
  local seqs, is_listed = {}, {}
  local function list(seq)
    if seq and not is_listed[seq] then
      is_listed[seq] = true
      seqs[#seqs + 1] = seq
    end
  end
  for i = 1, #others do list(others[i]) end
  for i = 1, count_within(found, max_bytes) do
    local letter, record = found[i][2][5], found[i][2][6]
    if letter == 'c' then
      list(string.match(record, '"target_seq":(%d+)'))
    elseif letter == 'm' or letter == 'r' then
      list(string.match(found[i][1], '^%d+'))
    end
  end
  local head, count = #reply + 1, 0
  reply[head] = 0
  -- Lua limits the number of values that unpack returns.
  for first = 1, #seqs, 1000 do
    local last = math.min(first + 999, #seqs)
    local forms = call('HMGET', key(ctx.tag, FORMS, room), unpack(seqs, first, last))
    for i = 1, #forms do
      if forms[i] then
        count = count + 1
        reply[head + count] = forms[i]
      end
    end
  end
  reply[head] = count
end
