-- Appends messages to rooms: for each message removes duplicates, assigns the seq, stores it and
-- publishes it.
--
-- i:=<call>             the reply to a call, packed
-- i:<room>:<user>:<key> the position of the send that the user identified by the key: id, seq,
--                       epoch and time, separated by spaces; then A if the archive has the message,
--                       as far as is known
--
-- ARGV[5]  milliseconds for which the key of a send is remembered
-- ARGV[6]  milliseconds for which entries are kept after the room's last one
-- ARGV[7]  a name for this call, if any of its messages has no key; else empty
-- ARGV[8]  the rooms of the call whose numbering is permanent (base64url, each between spaces)
-- ARGV[9]  the name of the archive behind the logs; empty: none
-- ARGV[10] empty if all entries are messages that are no replies. Else the milliseconds after which
--          the text of a deleted message is removed from its log; and the rooms of the call to which
--          replies are appended (base64url, each between spaces)
-- ARGV[11…] for each room three arguments: the tag of its partition (in a cluster the call's own
--          tag for all); the room (base64url); and the number of its messages. Then for each of
--          these messages two arguments: the id (36 characters) followed by <user>:<key>, or empty
--          if the message has no key; and the record. Before the id of a change: A. Before that
--          of a pointer: P; and its second argument is '<bytes of the record> <target seq> <1 if
--          the version is raised, else 0> <version> <time of the edit or 0>', a line feed, the
--          record, and the tail of the target's newest form (see log.lua)
--
-- Returns the time; then for each room its epoch and an outcome for each of its messages: the seq
-- as a number; or for a duplicate the text '1 ' and the first position, as in
-- i:<room>:<user>:<key>; or for a message that was refused '! ' and the reason; or '?' for each
-- message of a room that must be restored from the archive first.
--
-- Atomic for all messages. A room's messages are appended in the order of the call. When one is
-- refused, so are the later messages of its room, but not those of other rooms. A repeat of the
-- call has no effect within the time of ARGV[5]; for messages without a key within 15 seconds: the
-- client library may send a call again when slots move.
local ctx = context()
local dedupe_ms, history_ms, call_name, permanent_rooms = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
ctx.archive = ARGV[9]
local scrub_ms, rooms_with_replies
local has_changes = ARGV[10] ~= ''
if has_changes then scrub_ms, rooms_with_replies = string.match(ARGV[10], '^(%d+)(.*)$') end
local FIRST_ROOM = 11
local SENDS = 'i:'
-- The letters before the ids of a change and of a pointer.
local CHANGE, POINTER = byte('A'), byte('P')

-- The letter before the id at ARGV[i]; nil for a message. Ids have no such letter.
local function letter_at(i)
  local letter = has_changes and byte(ARGV[i])
  if letter == CHANGE or letter == POINTER then return letter end
  return nil
end


local reply_key = call_name ~= '' and key(ctx.tag, SENDS, '=') .. call_name
if reply_key then
  local earlier = call('GET', reply_key)
  if earlier then return cmsgpack.unpack(earlier) end
end

local time = int(ctx.now)
-- Retention times are renewed once in each period, and then for one period longer: so nothing is
-- kept for less than its time. A period is 1/64 of the shorter time. The room's hash records the
-- last renewal, that is the period's number and both times, which may be configured differently
-- now.
local period_ms = math.max(1, math.floor(math.min(tonumber(history_ms), tonumber(ctx.ttl_ms)) / 64))
local renewal = int(math.floor(ctx.now / period_ms)) .. ' ' .. history_ms .. ' ' .. ctx.ttl_ms

-- The send key of the message at each index of ARGV, if it has one; and the outcome under each send
-- key that exists already.
local key_of, known = {}, {}
local send_keys = {}
local at = FIRST_ROOM
while ARGV[at] do
  local last = at + 2 + 2 * ARGV[at + 2]
  local prefix
  for i = at + 3, last, 2 do
    if ARGV[i] ~= '' then
      prefix = prefix or key(ARGV[at], SENDS, ARGV[at + 1]) .. ':'
      local send_key = prefix .. sub(ARGV[i], letter_at(i) and 38 or 37)
      key_of[i] = send_key
      send_keys[#send_keys + 1] = send_key
    end
  end
  at = last + 1
end
if send_keys[1] then
  for n, position in ipairs(call('MGET', unpack(send_keys))) do
    if position then known[send_keys[n]] = '1 ' .. position end
  end
end

-- The number of duplicates among the messages at these indices: their send keys are known, or came
-- before in this call. `seen` holds the send keys of this call so far.
local function count_duplicates(first, last, key_of, known, seen)
  local count = 0
  for i = first, last, 2 do
    local send_key = key_of[i]
    if send_key then
      if known[send_key] or seen[send_key] then count = count + 1 end
      seen[send_key] = true
    end
  end
  return count
end

-- Begins a stream anew with this entry, after XADD failed with `reason`.
local function replace_remnant(reason, tag, room, log, number, epoch, field, record)
  -- A stream with ids above the numbering is a remnant of lost data. No other error is a reason to
  -- delete a log.
  if not find(reason, 'equal or smaller', 1, true) then error(reason, 0) end
  remove_log(tag, room)
  call('XADD', log, number .. '-0', 'e', epoch, 't', time, field, record)
end

-- The letter and the content of the tail of a form, and where its reactions begin.
local function content_of(tail)
  local letter, bytes, body = string.match(tail, '^%d+ %S+ %d+ (%a) (%d+)\n()')
  return letter, body + bytes
end

-- The newest form after a change. A form may have been read before an earlier change was published:
-- so a version never becomes lower, an edited message never shows its original content, and a
-- deleted one stays deleted.
local function newest_form(earlier, number, raises, version, edited_at, tail)
  local letter, reactions = content_of(tail)
  if earlier then
    local known_version, known_edited_at, at = string.match(earlier, '^(%d+) (%d+) ()')
    local known_tail = sub(earlier, at)
    local known_letter, known_reactions = content_of(known_tail)
    if known_letter == 'D' and letter ~= 'D' then return earlier end
    if tonumber(known_version) > tonumber(version) then
      version, edited_at = known_version, known_edited_at
    end
    if known_letter == 'E' and letter == 'O' then
      tail = sub(known_tail, 1, known_reactions - 1) .. sub(tail, reactions)
    end
  end
  if raises == '1' then version, edited_at = number, time end
  return version .. ' ' .. edited_at .. ' ' .. tail, letter
end

-- Makes the form of a pointer with this number the newest one of its target. `lifetime_ms`: how long
-- forms are kept; nil: until the archive has the pointer. Returns the form.
local function amend(tag, room, numbering, number, first, lifetime_ms, argument)
  local forms, targets = key(tag, FORMS, room), key(tag, TARGETS, room)
  local bytes, target, raises, version, edited_at, at =
    string.match(argument, '^(%d+) (%d+) (%d) (%d+) (%d+)\n()')
  local earlier = call('HGET', forms, target)
  local tail = sub(argument, at + bytes)
  local form, letter = newest_form(earlier, number, raises, version, edited_at, tail)
  call('HSET', forms, target, form)
  call('ZADD', targets, number, target)
  call('HSET', numbering, 'f', '1')
  for _, name in ipairs({ forms, targets }) do
    if lifetime_ms then call('PEXPIRE', name, int(lifetime_ms)) else call('PERSIST', name) end
  end
  if letter == 'D' then
    local entry = call('XRANGE', key(tag, LOG, room), target .. '-0', target .. '-0')[1]
    if entry and entry[2][6] ~= '' then
      call('ZADD', key(tag, SCRUBS, ''), 'NX', int(ctx.now + scrub_ms), room)
    end
  end
  remove_forms(tag, room, first)
  return form
end

local reply = { time }

-- Appends the messages of the room whose arguments are ARGV[at] to ARGV[last]; `new` of them (as
-- text) aren't duplicates. `archived`: the result of open_archived; nil without an archive. Writes
-- the epoch to reply[head] and the outcomes behind it, as far as it comes: raises an error when
-- Redis refuses a write.
local function append(at, last, new, head, archived)
  local tag, room = ARGV[at], ARGV[at + 1]
  local numbering, log, channel = room_keys(tag, room)
  local epoch, seq, must_renew, has_forms, position_end
  local trim_by, trim_limit = 'MAXLEN', history_size
  if new ~= '0' then
    if archived then
      epoch, has_forms = archived.epoch, archived.has_forms
    else
      local _, last_renewal
      epoch, _, last_renewal, has_forms = open_numbering(ctx, tag, room, numbering)
      must_renew = last_renewal ~= renewal
    end
    -- The numbering advances for all messages at once. This is the first write: a Redis without
    -- memory refuses it before anything has changed.
    seq = call('HINCRBY', numbering, 's', new) - new
    if has_changes and find(rooms_with_replies, ' ' .. room .. ' ', 1, true) then
      call('HSET', numbering, 'q', int(seq + new))
    end
    reply[head] = epoch
    position_end = ' ' .. epoch .. ' ' .. time
    if archived then
      if archived.watermark >= seq then keep_unarchived(ctx, tag, room, has_forms) end
      trim_by, trim_limit = 'MINID', first_kept(seq + new, archived.watermark)
    end
  end
  for i = at + 3, last, 2 do
    local send_key = key_of[i]
    local outcome = send_key and known[send_key]
    if not outcome then
      seq = seq + 1
      outcome = seq
      local number, record = int(seq), ARGV[i + 1]
      local field, frame, id = 'm', 'M', 1
      local letter, pointer_bytes = letter_at(i), ''
      if letter == CHANGE then
        field, frame, id = 'a', 'A', 2
      elseif letter == POINTER then
        local bytes, at = string.match(record, '^(%d+) [%d ]+\n()')
        field, frame, id, pointer_bytes = 'c', 'P', 2, ' ' .. bytes
        record = sub(record, at, at + bytes - 1)
      end
      local added = protected_call('XADD', log, trim_by, '~', trim_limit, number .. '-0',
        'e', epoch, 't', time, field, record)
      if type(added) == 'table' then
        replace_remnant(added.err, tag, room, log, number, epoch, field, record)
        must_renew = not archived
      end
      if must_renew then
        local permanent = find(permanent_rooms, ' ' .. room .. ' ', 1, true)
        call('PEXPIRE', log, int(history_ms + period_ms))
        if has_forms then
          call('PEXPIRE', key(tag, FORMS, room), int(history_ms + period_ms))
          call('PEXPIRE', key(tag, TARGETS, room), int(history_ms + period_ms))
        end
        renew_numbering(ctx, tag, room, permanent)
        call('HSET', numbering, 'x', renewal)
        must_renew = false
      end
      if send_key then
        local position = sub(ARGV[i], id, id + 35) .. ' ' .. number .. position_end
        call('SET', send_key, position, 'PX', dedupe_ms)
        known[send_key] = '1 ' .. position
      end
      if letter == POINTER then
        local first = archived and trim_limit or int(math.max(0, seq - history_size) + 1)
        local lifetime_ms = not archived and history_ms + period_ms or nil
        record = record .. amend(tag, room, numbering, number, first, lifetime_ms, ARGV[i + 1])
        has_forms = true
      end
      -- The message is stored by now. If it can't be published, nodes find it when they compare
      -- heads.
      protected_call(publish_command, channel,
        frame .. number .. position_end .. pointer_bytes .. '\n' .. record)
    end
    head = head + 1
    reply[head] = outcome
  end
end

local head, seen = 2, {}
at = FIRST_ROOM
while ARGV[at] do
  local count = ARGV[at + 2]
  local first, last = at + 3, at + 2 + 2 * count
  reply[head] = ''
  local archived = open_archived and open_archived(ctx, at, key_of, known)
  if archived == false then
    for n = head + 1, head + count do reply[n] = '?' end
  else
    local duplicates = send_keys[1] and count_duplicates(first, last, key_of, known, seen) or 0
    local new = duplicates > 0 and int(count - duplicates) or count
    local done, reason = pcall(append, at, last, new, head, archived)
    if not done then
      local refusal = '! ' .. tostring(type(reason) == 'table' and reason.err or reason)
      for i = first, last, 2 do
        local n = head + 1 + (i - first) / 2
        if not reply[n] then
          reply[n] = key_of[i] and known[key_of[i]] or refusal
          refusal = '! an earlier message of the room was refused'
        end
      end
    end
  end
  head = head + count + 1
  at = last + 1
end
-- A Redis that refuses this write has refused all messages, so there is nothing to remember.
if reply_key then protected_call('SET', reply_key, cmsgpack.pack(reply), 'PX', 15000) end
return reply
