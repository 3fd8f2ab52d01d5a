-- Reads a page of a room's members, with their names.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the most members to return
-- ARGV[7]  only ids greater than this one; empty: from the first one
--
-- Returns the number of members on all pages; then id and name of each, and of one more than asked
-- for if more follow. Atomic.
local ctx = context()
local room, limit, after = ARGV[5], tonumber(ARGV[6]), ARGV[7]

local from = after == '' and '-' or '(' .. after
local reply = { call('ZCARD', key(ctx.tag, MEMBERS, room)) }
local users = call('ZRANGEBYLEX', key(ctx.tag, MEMBERS, room), from, '+', 'LIMIT', 0, limit + 1)
for i = 1, #users do
  reply[#reply + 1] = users[i]
  reply[#reply + 1] = call('HGET', key(ctx.tag, NAMES, room), users[i]) or users[i]
end
return reply
