-- Reads who is in a room.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  R: total, version and ids; P: a page with names
-- ARGV[7]  at most so many
-- ARGV[8]  P: ids greater than this one (empty: from the first)
-- Returns for R: total, version, ids…; for P: total, then id, name, …, one more than asked for when more follow.
-- Atomic.
local R, limit = ARGV[5], tonumber(ARGV[7])
if ARGV[6] == 'R' then return roster({}, R, limit, nil) end
local from = ARGV[8] == '' and '-' or '(' .. ARGV[8]
local reply = { call('ZCARD', T .. 'u:' .. R) }
local users = call('ZRANGEBYLEX', T .. 'u:' .. R, from, '+', 'LIMIT', 0, limit + 1)
for i = 1, #users do
  reply[#reply + 1] = users[i]
  reply[#reply + 1] = call('HGET', T .. 'w:' .. R, users[i]) or users[i]
end
return reply
