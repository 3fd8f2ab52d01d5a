-- Lists the connections of an incarnation that are registered for a partition's users, so that its
-- node can find those that shouldn't be there.
--
-- ARGV[5]  incarnation
--
-- Returns for each: user (base64url), connection. Atomic. Takes time in proportion to the length of
-- the reply, so it is only called after data may have been lost.
local ctx = context()
local incarnation = ARGV[5]

local reply = {}
local names = call('SMEMBERS', held_key(ctx, incarnation))
for i = 1, #names do
  local connections = call('HGETALL', key(ctx.tag, CONNECTIONS, names[i]))
  for j = 1, #connections, 2 do
    if connections[j + 1] == incarnation then
      reply[#reply + 1] = names[i]
      reply[#reply + 1] = connections[j]
    end
  end
end
return reply
