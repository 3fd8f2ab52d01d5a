-- Looks whether a partition may have lost what an incarnation wrote.
--
-- ARGV[5]  incarnation
-- Returns the replid, which differs after a restart or promotion, and 1 when the incarnation's entry is there. Atomic.
return { replid(), call('EXISTS', T .. 'N:' .. ARGV[5]) }
