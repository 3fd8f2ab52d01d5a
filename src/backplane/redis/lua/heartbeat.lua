-- A node's heartbeat: prolongs its lease, and hands out dead incarnations that the node must reap.
--
-- ARGV[5]  incarnation
-- ARGV[6]  milliseconds that a lease lasts
-- ARGV[7]  milliseconds that a claim lasts
-- ARGV[8]  the most dead incarnations to hand out
-- ARGV[9]  the version of the layout that the node uses
-- ARGV[10] a key that exists if there is data of layout 1, which has no version; or empty
-- ARGV[11] the id of the archive behind the node's logs; empty: none
--
-- Sets a missing version, and the missing id of an archive. Returns LAYOUT and a version if the
-- data has another version of the layout, or ARCHIVE and an id if its logs have another archive:
-- then it changes nothing. Else returns NEW if no lease was known, KNOWN, or GONE if the
-- incarnation is condemned and the node must take another one; then the dead incarnations. Each is
-- handed to one node at a time. Atomic.
local ctx = context()
local incarnation, lease_ms, claim_ms, limit = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local own_layout, sign_of_layout_1, own_archive = ARGV[9], ARGV[10], ARGV[11]
local leases, condemned = key(ctx.tag, LEASES, ''), key(ctx.tag, CONDEMNED, '')
local last_beat = key(ctx.tag, LAST_BEAT, '')

local layout = call('GET', key(ctx.tag, LAYOUT, ''))
if layout and layout ~= own_layout then return { 'LAYOUT', layout } end
if not layout then
  -- The user need not have the right to read this key.
  if sign_of_layout_1 ~= '' and protected_call('EXISTS', sign_of_layout_1) == 1 then
    return { 'LAYOUT', '1' }
  end
end
local archive = call('GET', key(ctx.tag, ARCHIVE, ''))
if archive and archive ~= own_archive then return { 'ARCHIVE', archive } end
if not layout then call('SET', key(ctx.tag, LAYOUT, ''), own_layout) end
if not archive and own_archive ~= '' then call('SET', key(ctx.tag, ARCHIVE, ''), own_archive) end
if call('ZSCORE', condemned, incarnation) then return { 'GONE' } end
local reply = { call('ZSCORE', leases, incarnation) and 'KNOWN' or 'NEW' }
local lease_end = ctx.now + lease_ms
-- If no node has sent a heartbeat for half a lease, then Redis was away, and the other nodes are
-- about to return like this one: each gets a new lease, or the first node to return would reap all
-- others. Condemned ones stay condemned.
if ctx.now - tonumber(call('GET', last_beat) or '0') > lease_ms / 2 then
  local all = call('ZRANGEBYSCORE', leases, '-inf', '(' .. int(lease_end))
  for i = 1, #all do
    if not call('ZSCORE', condemned, all[i]) then call('ZADD', leases, int(lease_end), all[i]) end
  end
end
call('ZADD', leases, int(lease_end), incarnation)
call('SET', last_beat, int(ctx.now))
local dead = call('ZRANGEBYSCORE', leases, '-inf', int(ctx.now), 'LIMIT', 0, limit)
for i = 1, #dead do
  if call('SET', key(ctx.tag, CLAIM, dead[i]), incarnation, 'NX', 'PX', claim_ms) then
    reply[#reply + 1] = dead[i]
  end
end
return reply
