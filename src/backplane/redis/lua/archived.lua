-- Advances the watermarks of rooms over entries that the archive has.
--
-- ARGV[5]  the name of the archive behind the logs
-- ARGV[6]  milliseconds for which entries are kept after the room's last one
-- ARGV[7]  the rooms of the call whose numbering is permanent (base64url, each between spaces)
-- ARGV[8…] for each room four arguments: the tag of its partition (in a cluster the call's own tag
--          for all); the room (base64url); the epoch in which the numbers were assigned; and the
--          ranges, as 'first last first last …'
--
-- Returns the watermark of each room; 0 for a room that isn't known, or has never been archived, which
-- is skipped. Atomic. A repeat has no effect.
local ctx = context()
local archive, history_ms, permanent_rooms = ARGV[5], ARGV[6], ARGV[7]

-- The most ranges that a room remembers after its watermark. The sweeper reports forgotten ones
-- again.
local MAX_RANGES = 4096

-- The last seq up to which the numbers of an epoch are those of the room; nil: none.
local function end_of_epoch(tag, room, epoch, current, last_seq, shared)
  if epoch == current then return math.min(last_seq, tonumber(shared or last_seq)) end
  for _, past in ipairs(past_epochs(tag, room)) do
    local past_epoch, past_end = string.match(past, '^(%S+) (%d+)')
    if past_epoch == epoch then return math.min(last_seq, tonumber(past_end)) end
  end
  return nil
end

local function add_ranges(ranges, text, last_seq)
  for first, last in string.gmatch(text, '(%d+) (%d+)') do
    first, last = tonumber(first), math.min(tonumber(last), last_seq)
    if first <= last then ranges[#ranges + 1] = { first, last } end
  end
end

-- Merges the ranges. Returns the watermark, advanced over those that follow it without a hole, and
-- the text of the others.
local function merge(ranges, watermark)
  table.sort(ranges, function(one, other) return one[1] < other[1] end)
  local rest = {}
  for _, range in ipairs(ranges) do
    local last = rest[#rest]
    if range[1] <= watermark + 1 then
      watermark = math.max(watermark, range[2])
    elseif last and range[1] <= last[2] + 1 then
      last[2] = math.max(last[2], range[2])
    elseif #rest < MAX_RANGES then
      rest[#rest + 1] = range
    end
  end
  local texts = {}
  for i = 1, #rest do texts[i] = int(rest[i][1]) .. ' ' .. int(rest[i][2]) end
  return watermark, table.concat(texts, ' ')
end

-- Handles the room whose arguments begin at ARGV[at]. Returns its watermark.
local function advance(at)
  local tag, room, epoch, reported = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local numbering = key(tag, NUMBERING, room)
  local fields = call('HMGET', numbering, 'e', 's', 'r', 'a', 'y', 'd', 'f')
  local current, seq, history, before, earlier, shared, has_forms = unpack(fields)
  if not current or not before or string.match(history, ' (%S+)$') ~= archive then return 0 end
  seq, before = tonumber(seq), tonumber(before)
  local epoch_end = end_of_epoch(tag, room, epoch, current, seq, shared)
  if not epoch_end then return before end

  local ranges = {}
  add_ranges(ranges, earlier or '', seq)
  add_ranges(ranges, reported, epoch_end)
  local watermark, rest = merge(ranges, before)
  if rest ~= (earlier or '') then
    if rest == '' then call('HDEL', numbering, 'y') else call('HSET', numbering, 'y', rest) end
  end
  if watermark == before then return before end
  call('HSET', numbering, 'a', int(watermark))
  if watermark < seq then
    call('ZADD', key(tag, UNARCHIVED, ''), int(ctx.now), room)
  else
    local permanent = find(permanent_rooms, ' ' .. room .. ' ', 1, true)
    release_archived(ctx, tag, room, permanent, history_ms, has_forms)
  end
  -- While much was not archived, appends have trimmed less than the history size allows.
  if before < seq - ctx.history_size then
    local hidden = math.min(seq - ctx.history_size, watermark)
    call('XTRIM', key(tag, LOG, room), 'MINID', '~', int(hidden + 1))
  end
  return watermark
end

local watermarks = {}
for at = 8, #ARGV, 4 do watermarks[#watermarks + 1] = advance(at) end
return watermarks
