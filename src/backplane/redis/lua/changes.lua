-- Reads the changes of a room or a user after a version.
--
-- ARGV[5]  the key of the stream, without the tag
-- ARGV[6]  the key of the hash that holds the last version in v, without the tag
-- ARGV[7]  the version
-- Returns the last version, then the stream's entries as they are. Atomic.
local last = call('HGET', T .. ARGV[6], 'v') or '0'
if last == ARGV[7] then return { last } end
return { last, call('XRANGE', T .. ARGV[5], int(tonumber(ARGV[7]) + 1) .. '-0', '+') }
