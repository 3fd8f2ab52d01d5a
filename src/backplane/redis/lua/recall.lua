-- Takes over what a node was told of a user, where Redis has lost it.
--
-- ARGV[5…10]  user (base64url), online, version, the version before, time of the last change, name
-- ARGV[11]    milliseconds that nodes have to put their connections back
-- Returns 1 when it was taken over: then a grace begins, at whose end the state follows from the user's connections, as
-- after any grace. Atomic. Does nothing when Redis knows that version or a later one, so that repeating it does nothing.
local U, key = ARGV[5], T .. 's:' .. ARGV[5]
if tonumber(call('HGET', key, 'v') or '0') >= tonumber(ARGV[7]) then return { 0 } end
call('HSET', key, 'o', ARGV[6], 'v', ARGV[7], 'p', ARGV[8], 'l', ARGV[9], 'u', ARGV[10])
if ARGV[6] == '1' then call('PERSIST', key) else call('PEXPIRE', key, TTL) end
grace(U, tonumber(ARGV[11]))
return { 1 }
