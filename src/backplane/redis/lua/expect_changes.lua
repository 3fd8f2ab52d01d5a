-- Marks a room, if it is known: changes of its messages may be in the archive before they are
-- announced.
--
-- ARGV[5]  room (base64url)
--
-- Returns 1 if the room is known, else 0. Atomic. A repeat changes nothing.
local ctx = context()
local numbering = key(ctx.tag, NUMBERING, ARGV[5])

if call('EXISTS', numbering) == 0 then return { 0 } end
call('HSET', numbering, 'f', '1')
return { 1 }
