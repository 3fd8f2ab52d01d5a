-- Restores a user's status that Redis has lost, from the last one that a node's watchers were sent.
--
-- ARGV[5]   user (base64url)
-- ARGV[6]   online (0 or 1)
-- ARGV[7]   version
-- ARGV[8]   previous version
-- ARGV[9]   time of the last change
-- ARGV[10]  name
-- ARGV[11]  milliseconds in which nodes must register their connections again
--
-- Returns 1 if the status was restored. A grace then begins, and at its end the status follows from
-- the user's connections, as after any grace. Returns 0 and does nothing if Redis knows that
-- version or a later one, so a repeat has no effect. Atomic.
local ctx = context()
local user = ARGV[5]
local online, version, previous, changed_at, name = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local grace_ms = tonumber(ARGV[11])

local status = key(ctx.tag, STATUS, user)
if tonumber(call('HGET', status, 'v') or '0') >= tonumber(version) then return { 0 } end
call('HSET', status, 'o', online, 'v', version, 'p', previous, 'l', changed_at, 'u', name)
if online == '1' then call('PERSIST', status) else call('PEXPIRE', status, ctx.ttl_ms) end
begin_grace(ctx, user, grace_ms)
return { 1 }
