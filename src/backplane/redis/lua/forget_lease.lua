-- Removes the lease of an incarnation that was reaped.
--
-- ARGV[5]  incarnation
--
-- Returns 1. Atomic; a repeat has no effect.
local ctx = context()
local incarnation = ARGV[5]

call('DEL', key(ctx.tag, CLAIM, incarnation))
call('ZREM', key(ctx.tag, LEASES, ''), incarnation)
return { 1 }
