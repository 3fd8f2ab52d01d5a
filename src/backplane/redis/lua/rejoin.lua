-- Adds connections to rooms of one partition again, after their incarnation was reaped or Redis has
-- lost data.
--
-- ARGV[5]  incarnation
-- ARGV[6]  1 if data was lost: a room that lacked members then gets one change of kind restored,
--          instead of a change of kind joined for each member
-- ARGV[7…] for each: room (base64url), connection, user, name
--
-- Returns the number of changes published and the replid. Atomic. A repeat changes nothing, and a
-- user that is still a member causes no change. FENCED if the incarnation was reaped.
local ctx = context()
local incarnation, data_lost = ARGV[5], ARGV[6] == '1'

if is_fenced(ctx, incarnation) then return fenced_error() end
local opened, restored, changes = {}, {}, 0
for i = 7, #ARGV, 4 do
  local room, conn, user, name = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if not opened[room] then
    opened[room] = true
    open_numbering(ctx, ctx.tag, room, key(ctx.tag, NUMBERING, room))
  end
  if add_connection(ctx, room, incarnation, conn, user, name) then
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
return { changes, replid(ctx) }
