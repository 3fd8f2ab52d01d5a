-- Removes a connection from a room at once.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  incarnation
-- ARGV[7]  connection
--
-- Returns the number of changes published. Atomic. Does nothing if the connection isn't in the
-- room. A grace of the user that is running keeps the user in the room. FENCED if the incarnation
-- was reaped.
local ctx = context()
local room = ARGV[5]
local incarnation, conn = ARGV[6], ARGV[7]

if is_fenced(ctx, incarnation) then return fenced_error() end
local user, remaining = remove_connection(ctx, room, incarnation, conn)
if user and remaining <= 0 and not has_grace(ctx, room, user) then
  return { remove_member(ctx, room, user) }
end
return { 0 }
