-- Adds a connection to a room and reads the room's log span and members.
--
-- ARGV[5]   room (base64url)
-- ARGV[6]   incarnation
-- ARGV[7]   connection
-- ARGV[8]   user
-- ARGV[9]   name
-- ARGV[10]  the most ids to return
-- ARGV[11]  the name of the archive behind the log; empty: none
--
-- Returns epoch, last seq, oldest seq, the previous epochs (see span.lua), the number of changes
-- published, the replid, the number of members, the version of the membership, and ids. Atomic: all
-- of the same moment. A repeat only reads. FENCED if the incarnation was reaped. With an archive:
-- UNRESTORED, and nothing is done, if the room must be restored first.
local ctx = context()
local room = ARGV[5]
local incarnation, conn, user, name, limit = ARGV[6], ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
ctx.archive = ARGV[11]

if is_fenced(ctx, incarnation) then return fenced_error() end
local epoch, seq, watermark = numbering_of(ctx, room)
if not epoch then return unrestored_error() end
local changes = 0
if add_connection(ctx, room, incarnation, conn, user, name) then
  publish_change(ctx, room, 'J', user, name)
  changes = 1
end
local reply = span_reply(ctx, room, epoch, seq, watermark)
reply[#reply + 1] = changes
reply[#reply + 1] = replid(ctx)
return add_roster(ctx, reply, room, limit, user)
