-- The id of the deployment: of all nodes whose data lies under the same tags of this Redis.
--
-- ARGV[5]  the id of a new deployment
--
-- Returns the id that the deployment has. If it has none, because there is no data yet or Redis has
-- lost it, the new id becomes its id. Atomic.
local new_id = ARGV[5]
local deployment = key(tag, DEPLOYMENT, '')

local id = call('GET', deployment)
if not id then
  call('SET', deployment, new_id)
  id = new_id
end
return { id }
