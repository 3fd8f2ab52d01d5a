-- Lists the connections that an incarnation has in a partition's rooms, so that its node can find
-- those that shouldn't be there.
--
-- ARGV[5]  incarnation
--
-- Returns for each: room (base64url), connection. Atomic. Takes time in proportion to the length of
-- the reply, so it is only called after data may have been lost.
local ctx = context()
local incarnation = ARGV[5]

local reply = {}
local names = call('SMEMBERS', held_key(ctx, incarnation))
for i = 1, #names do
  local connections = call('HKEYS', connections_key(ctx, names[i], incarnation))
  for j = 1, #connections do
    reply[#reply + 1] = names[i]
    reply[#reply + 1] = connections[j]
  end
end
return reply
