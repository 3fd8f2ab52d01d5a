-- Shared by the scripts about users; requires presence.lua. A user is a table: tag and name (the id
-- in base64url).
--
-- s:<user>         hash, the status: o online (0 or 1), v version, p previous version, l time of
--                  the last change, u name
-- c:<user>         hash: live connection → incarnation
-- p:<user>         stream of the last 100 changes. Ids are version-0. Fields: o online, l time of
--                  the change, n name, p previous version
local STATUS, CONNECTIONS, CHANGES = 's:', 'c:', 'p:'

-- Sets the user online ('1') or offline ('0'). If that differs from the status, assigns a version,
-- stores the change and publishes it. Returns the number of changes published.
local function set_online(ctx, user, online)
  local status = key(ctx.tag, STATUS, user)
  local fields = call('HMGET', status, 'o', 'v', 'u')
  if (fields[1] or '0') == online then return 0 end
  local previous = tonumber(fields[2] or '0')
  local version = int(math.max(previous + 1, ctx.now))
  local name = fields[3] or ''
  call('HSET', status, 'o', online, 'v', version, 'p', int(previous), 'l', int(ctx.now))
  call('XADD', key(ctx.tag, CHANGES, user), 'MAXLEN', '=', 100, version .. '-0',
    'o', online, 'l', int(ctx.now), 'n', name, 'p', int(previous))
  call('PEXPIRE', key(ctx.tag, CHANGES, user), ctx.ttl_ms)
  if online == '1' then call('PERSIST', status) else call('PEXPIRE', status, ctx.ttl_ms) end
  local head = { version, int(previous), online, int(ctx.now) }
  call(ctx.publish, key(ctx.tag, CHANNEL, user), 'S' .. table.concat(head, ' ') .. '\n' .. name)
  return 1
end
