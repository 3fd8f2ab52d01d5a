-- Lists what a partition holds of an incarnation, to find what should no longer be there.
--
-- ARGV[5]  incarnation
-- ARGV[6]  R: rooms lie in the partition; U: users do
-- Returns for each entry: room or user (base64url), connection. Atomic; as long as the answer, so only asked after a
-- promotion.
local inc, reply = ARGV[5], {}
local names = call('SMEMBERS', T .. 'N:' .. inc)
for i = 1, #names do
  local held = call('HGETALL', ARGV[6] == 'R' and T .. 'n:' .. names[i] .. ':' .. inc or T .. 'c:' .. names[i])
  for j = 1, #held, 2 do
    if ARGV[6] == 'R' or held[j + 1] == inc then
      reply[#reply + 1] = names[i]
      reply[#reply + 1] = held[j]
    end
  end
end
return reply
