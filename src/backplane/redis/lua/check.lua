-- Checks whether a partition may have lost what an incarnation has written to it.
--
-- ARGV[5]  incarnation
--
-- Returns the replid, which differs after a restart or promotion, and 1 if the partition holds
-- anything of the incarnation. Atomic.
local ctx = context()
local incarnation = ARGV[5]

return { replid(ctx), call('EXISTS', held_key(ctx, incarnation)) }
