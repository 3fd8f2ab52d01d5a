-- Shared by the scripts that read the log span of a room of the call's partition; requires log.lua.

-- The lowest seq that readers may see. The stream is trimmed in whole blocks, so it may hold more
-- entries than that. Entries above the watermark, if there is one, are all visible.
local function oldest_seq(ctx, room, last_seq, watermark)
  local first = call('XRANGE', key(ctx.tag, LOG, room), '-', '+', 'COUNT', 1)[1]
  if not first then return last_seq + 1 end
  local hidden = math.min(last_seq - ctx.history_size, watermark or last_seq)
  return math.max(tonumber(string.match(first[1], '^%d+')), hidden + 1)
end

-- The beginning of a reply: epoch, last seq, oldest seq, and the previous epochs, each with the seq
-- at which it ended, separated by spaces. Returns also the oldest seq as a number.
local function span_reply(ctx, room, epoch, last_seq, watermark)
  local oldest = oldest_seq(ctx, room, last_seq, watermark)
  local past = table.concat(past_epochs(ctx.tag, room), ' ')
  return { epoch, int(last_seq), int(oldest), past }, oldest
end
