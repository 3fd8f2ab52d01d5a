-- Adds what users have spent of their rates, and tells what the whole cluster has spent.
--
-- q:user  hash: for each kind, the time (Redis's, in microseconds) at which all of it will be made up for; gone when all is
--
-- ARGV[5…] for each: the user (base64url), then the microseconds that each of the four kinds takes to make up for
-- Returns for each user the microseconds that each kind takes from now on. Atomic.
local reply, now = {}, NOW * 1000
for i = 5, #ARGV, 5 do
  local key, last = T .. 'q:' .. ARGV[i], 0
  local held = call('HMGET', key, '1', '2', '3', '4')
  for kind = 1, 4 do
    local owed = math.max(tonumber(held[kind] or '0') - now, 0) + tonumber(ARGV[i + kind])
    call('HSET', key, tostring(kind), int(now + owed))
    reply[#reply + 1] = owed
    last = math.max(last, owed)
  end
  call('PEXPIRE', key, int(math.ceil(last / 1000) + 1))
end
return reply
