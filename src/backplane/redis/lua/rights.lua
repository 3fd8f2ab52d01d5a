-- Tries every command that scripts run, each on a key of its own type that is deleted again.
--
-- rights:<type>  a key of this type, within this script only
--
-- ARGV[5]  the name of the archive behind the logs; empty: none, and the commands that only an
--          archive needs are left out
--
-- Returns for each command that failed: its name, and the error. Atomic. A server that denies a
-- command to the user does so before it checks anything else, so other errors are reported, too, and
-- say nothing about rights.
local archive = ARGV[5]

local function scratch(type) return key(tag, 'rights:', type) end
local STRING, HASH, SET = scratch('string'), scratch('hash'), scratch('set')
local SORTED_SET, STREAM = scratch('zset'), scratch('stream')

local reply = {}
local function try(command, ...)
  local result = protected_call(command, ...)
  if type(result) == 'table' and result.err then
    reply[#reply + 1] = command
    reply[#reply + 1] = result.err
  end
end

try('TIME')
try('INFO', 'replication')
try(publish_command, tag .. CHANNEL, '')
try('SET', STRING, '', 'PX', 1000)
try('GET', STRING)
try('MGET', STRING)
try('HSET', HASH, 'field', '1')
try('HSETNX', HASH, 'field', '1')
try('HINCRBY', HASH, 'field', 1)
try('HGET', HASH, 'field')
try('HMGET', HASH, 'field')
try('HGETALL', HASH)
try('HKEYS', HASH)
try('HVALS', HASH)
try('HLEN', HASH)
try('HSCAN', HASH, '0')
try('HDEL', HASH, 'field')
try('SADD', SET, 'member')
try('SMEMBERS', SET)
try('SRANDMEMBER', SET)
try('SREM', SET, 'member')
try('ZADD', SORTED_SET, 0, 'member')
try('ZCARD', SORTED_SET)
try('ZSCORE', SORTED_SET, 'member')
try('ZRANK', SORTED_SET, 'member')
try('ZRANGE', SORTED_SET, 0, 0)
try('ZRANGEBYLEX', SORTED_SET, '-', '+')
try('ZRANGEBYSCORE', SORTED_SET, '-inf', '+inf')
try('ZREMRANGEBYSCORE', SORTED_SET, '-inf', '(0')
try('ZREM', SORTED_SET, 'member')
try('XADD', STREAM, '*', 'field', '')
try('XRANGE', STREAM, '-', '+')
try('XREVRANGE', STREAM, '+', '-')
if archive ~= '' then
  try('XTRIM', STREAM, 'MINID', '=', '1')
  try('RENAME', STREAM, scratch('copy'))
  try('RENAME', scratch('copy'), STREAM)
end
try('PERSIST', STRING)
try('PTTL', STRING)
try('EXISTS', STRING)
-- If DEL is denied, the keys expire.
for _, scratch_key in ipairs({ STRING, HASH, SET, SORTED_SET, STREAM }) do
  try('PEXPIRE', scratch_key, 1000)
end
try('DEL', STRING, HASH, SET, SORTED_SET, STREAM)
return reply
