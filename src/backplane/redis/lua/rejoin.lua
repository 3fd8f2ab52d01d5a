-- Adds connections to rooms of one partition again, after their incarnation was reaped or Redis has
-- lost data.
--
-- ARGV[5]  incarnation
-- ARGV[6]  1 if data was lost: a room that lacked members then gets one change of kind restored,
--          instead of a change of kind joined for each member
-- ARGV[7]  the name of the archive behind the logs; empty: none
-- ARGV[8…] for each: room (base64url), connection, user, name
--
-- Returns the number of changes published, the replid, and with an archive the rooms that must be
-- restored first: nothing is done for these. Atomic. A repeat changes nothing, and a user that is
-- still a member causes no change. FENCED if the incarnation was reaped.
local ctx = context()
local incarnation, data_lost = ARGV[5], ARGV[6] == '1'
ctx.archive = ARGV[7]

if is_fenced(ctx, incarnation) then return fenced_error() end
-- Whether each room's numbering is open.
local opened = {}
local unrestored, restored, changes = {}, {}, 0
for i = 8, #ARGV, 4 do
  local room, conn, user, name = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if opened[room] == nil then
    opened[room] = numbering_of(ctx, room) ~= nil
    if not opened[room] then unrestored[#unrestored + 1] = room end
  end
  if opened[room] and add_connection(ctx, room, incarnation, conn, user, name) then
    if data_lost then
      restored[room] = restored[room] or { user = user, name = name }
    else
      publish_change(ctx, room, 'J', user, name)
      changes = changes + 1
    end
  end
end
for room, first in pairs(restored) do
  publish_change(ctx, room, 'R', first.user, first.name)
  changes = changes + 1
end
return { changes, replid(ctx), unpack(unrestored) }
