-- Removes executions of one shard whose retention is over.
-- KEYS: ended, index (records and logs share their tag and are made from ARGV[1])
-- ARGV: key prefix, how many at most
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(over) do
  redis.call('UNLINK', ARGV[1] .. 'x:' .. id, ARGV[1] .. 'log:' .. id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[1], id)
end
return #over
