-- Registers a live connection of a user, or renames the user.
--
-- ARGV[5…9]  user (base64url), incarnation, connection, name, the most live connections
-- ARGV[10…]  incarnations known to be dead, whose connections don't count
-- Returns OK, changes published and the replid; or FULL and the incarnations that hold the user's connections.
-- Atomic. Repeating it changes nothing. FENCED when the incarnation was reaped.
local U, inc, conn, name, most = ARGV[5], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
if fenced(inc) then return redis.error_reply(FENCED) end
local key = T .. 'c:' .. U
if not call('HGET', key, conn) and call('HLEN', key) >= most then
  local dead, live, holders = {}, 0, { 'FULL' }
  for i = 10, #ARGV do dead[ARGV[i]] = true end
  local held = call('HVALS', key)
  for i = 1, #held do
    if not dead[held[i]] then
      live = live + 1
      holders[#holders + 1] = held[i]
    end
  end
  if live >= most then return holders end
end
call('HSET', key, conn, inc)
call('SADD', T .. 'N:' .. inc, U)
call('ZREM', T .. 'g', U)
call('HSET', T .. 's:' .. U, 'u', name)
return { 'OK', flip(U, '1'), replid() }
