-- Put before append.lua if the logs have an archive; requires archive.lua.

-- Whether the message with this outcome of a duplicate was lost since: its number was assigned in
-- an earlier epoch than the current one, and not before the end of that epoch. The keys of all sends
-- that the archive has are set anew when another epoch begins, so an unknown epoch is a lost one.
local function is_lost(tag, room, current_epoch, outcome)
  local seq, epoch, mark = string.match(outcome, '^1 %S+ (%d+) (%S+) %d+ ?(A?)')
  if epoch == current_epoch or mark == 'A' then return false end
  for _, past in ipairs(past_epochs(tag, room)) do
    local past_epoch, last_seq = string.match(past, '^(%S+) (%d+)')
    if past_epoch == epoch then return tonumber(seq) > tonumber(last_seq) end
  end
  return true
end

-- Reads the numbering of the room whose arguments begin at ARGV[at]: a table of epoch, watermark and
-- has_forms, or false if the room must be restored first. `key_of` has the send key of the message at
-- each index of ARGV. Removes the send keys of messages that were lost from `known`.
local function open_archived(ctx, at, key_of, known)
  local tag, room = ARGV[at], ARGV[at + 1]
  local epoch, _, watermark, has_forms = archived_numbering(ctx, key(tag, NUMBERING, room))
  if not epoch then return false end
  for i = at + 3, at + 2 + 2 * ARGV[at + 2], 2 do
    local outcome = key_of[i] and known[key_of[i]]
    if outcome and is_lost(tag, room, epoch, outcome) then known[key_of[i]] = nil end
  end
  return { epoch = epoch, watermark = watermark, has_forms = has_forms }
end

-- The lowest seq that a log must keep, as text: entries that are archived and older than the newest
-- ones that the history size allows may be removed.
local function first_kept(last_seq, watermark)
  return int(math.max(0, math.min(last_seq - history_size, watermark)) + 1)
end
