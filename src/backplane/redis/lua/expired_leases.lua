-- Finds out which incarnations have no lease, or one that has expired.
--
-- ARGV[5…] incarnations
--
-- Returns those of them. Atomic.
local ctx = context()

local expired = {}
for i = 5, #ARGV do
  local lease_end = call('ZSCORE', key(ctx.tag, LEASES, ''), ARGV[i])
  if not lease_end or tonumber(lease_end) < ctx.now then expired[#expired + 1] = ARGV[i] end
end
return expired
