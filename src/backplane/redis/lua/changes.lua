-- Reads the changes of a room or a user after a version.
--
-- ARGV[5]  room or user (base64url)
-- ARGV[6]  the hash that holds the version of the last change: m: of a room, s: of a user
-- ARGV[7]  the version
--
-- Returns the version of the last change; then, unless it is the one given, the stream's entries
-- after the version, as Redis returns them. Atomic.
local ctx = context()
local name, hash, version = ARGV[5], ARGV[6], ARGV[7]
local CHANGES = 'p:'

local last = call('HGET', key(ctx.tag, hash, name), 'v') or '0'
if last == version then return { last } end
local first = int(tonumber(version) + 1) .. '-0'
return { last, call('XRANGE', key(ctx.tag, CHANGES, name), first, '+') }
