-- Puts connections back into rooms of one partition, after their incarnation was reaped or Redis has lost data.
--
-- ARGV[5]  incarnation
-- ARGV[6]  1: data was lost, so a room that lacked someone gets one Restored instead of a Joined for each
-- ARGV[7…] for each: room (base64url), connection, user, name
-- Returns the number of changes published and the replid. Atomic. Repeating it changes nothing; whoever still counts causes no change.
local inc, lost = ARGV[5], ARGV[6] == '1'
if fenced(inc) then return redis.error_reply(FENCED) end
local opened, restored, changes = {}, {}, 0
for i = 7, #ARGV, 4 do
  local R, conn, user, name = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if not opened[R] then
    open(R)
    opened[R] = true
  end
  if enter(R, inc, conn, user, name) then
    if lost then
      restored[R] = restored[R] or { user, name }
    else
      change(R, 'J', user, name)
      changes = changes + 1
    end
  end
end
for R, who in pairs(restored) do
  change(R, 'R', who[1], who[2])
  changes = changes + 1
end
return { changes, replid() }
