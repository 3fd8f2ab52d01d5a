-- Reads users' states.
--
-- ARGV[5…] users (base64url)
-- Returns the time, then for each: online (0, 1), version, the version before, time of the last change, name; version 0
-- for a user never seen. Atomic.
local reply = { int(NOW) }
for i = 5, #ARGV do
  local s = call('HMGET', T .. 's:' .. ARGV[i], 'o', 'v', 'p', 'l', 'u')
  reply[#reply + 1] = s[1] or '0'
  reply[#reply + 1] = s[2] or '0'
  reply[#reply + 1] = s[3] or '0'
  reply[#reply + 1] = s[4] or '0'
  reply[#reply + 1] = s[5] or ''
end
return reply
