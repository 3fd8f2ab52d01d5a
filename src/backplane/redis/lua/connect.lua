-- Registers a live connection of a user, or updates the user's name.
--
-- ARGV[5]    user (base64url)
-- ARGV[6]    incarnation
-- ARGV[7]    connection
-- ARGV[8]    name
-- ARGV[9]    the most live connections that a user may have
-- ARGV[10…]  incarnations known to be dead: their connections don't count
--
-- Returns OK, the number of changes published and the replid; or FULL and the incarnations of the
-- user's other connections. Atomic. A repeat changes nothing. FENCED if the incarnation was reaped.
local ctx = context()
local user = ARGV[5]
local incarnation, conn, name, most = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])

if is_fenced(ctx, incarnation) then return fenced_error() end
local connections = key(ctx.tag, CONNECTIONS, user)
if not call('HGET', connections, conn) and call('HLEN', connections) >= most then
  local dead, live, full_reply = {}, 0, { 'FULL' }
  for i = 10, #ARGV do dead[ARGV[i]] = true end
  local holders = call('HVALS', connections)
  for i = 1, #holders do
    if not dead[holders[i]] then
      live = live + 1
      full_reply[#full_reply + 1] = holders[i]
    end
  end
  if live >= most then return full_reply end
end
call('HSET', connections, conn, incarnation)
call('SADD', held_key(ctx, incarnation), user)
call('ZREM', key(ctx.tag, GRACES, ''), user)
call('HSET', key(ctx.tag, STATUS, user), 'u', name)
return { 'OK', set_online(ctx, user, '1'), replid(ctx) }
