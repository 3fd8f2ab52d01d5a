-- Adds charges to users' rate limits and returns the sums of all nodes. A charge is the time in
-- which the user's rate earns the cost back.
--
-- q:<user>  hash: for each of the four kinds of cost (1 to 4) the time, in microseconds by Redis's
--           clock, at which the sum is earned back. The key expires when all four are earned back.
--
-- ARGV[5…] for each: the user (base64url), then the charge of each of the four kinds in
--          microseconds
--
-- Returns for each user the sum of each kind in microseconds, after this call. Atomic.
local ctx = context()
local RATES = 'q:'

local reply, now = {}, ctx.now * 1000
for i = 5, #ARGV, 5 do
  local rates = key(ctx.tag, RATES, ARGV[i])
  local earned_back_at = call('HMGET', rates, '1', '2', '3', '4')
  local longest = 0
  for kind = 1, 4 do
    local charge = tonumber(ARGV[i + kind])
    local sum = math.max(tonumber(earned_back_at[kind] or '0') - now, 0) + charge
    call('HSET', rates, tostring(kind), int(now + sum))
    reply[#reply + 1] = sum
    longest = math.max(longest, sum)
  end
  call('PEXPIRE', rates, int(math.ceil(longest / 1000) + 1))
end
return reply
