-- Reads users' status.
--
-- ARGV[5…] users (base64url)
--
-- Returns the time; then for each: online (0 or 1), version, previous version, time of the last
-- change, name. The version of a user never seen is 0. Atomic.
local ctx = context()

local reply = { int(ctx.now) }
for i = 5, #ARGV do
  local user = ARGV[i]
  local fields = call('HMGET', key(ctx.tag, STATUS, user), 'o', 'v', 'p', 'l', 'u')
  reply[#reply + 1] = fields[1] or '0'
  reply[#reply + 1] = fields[2] or '0'
  reply[#reply + 1] = fields[3] or '0'
  reply[#reply + 1] = fields[4] or '0'
  reply[#reply + 1] = fields[5] or ''
end
return reply
