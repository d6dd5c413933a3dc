-- Makes a change of state durable if nobody has changed the record since it was read.
-- KEYS: record, log, leases, queues, ready, delayed, ended, bell of the queue, bell of all queues
-- ARGV: id, expected revision, '1' if the lease must have run out, wake-up channel,
--       state, phase after ('queued', 'running', 'ended'), attempt, order ('0' none, '1' cancel, '2' pause), queue,
--       retention in ms, then id and text of each line
-- Returns {0} on a conflict, {-1} if the lease holds, {1, record…} when done.
local current = redis.call('HMGET', KEYS[1], 'revision', 'status', 'score')
if current[1] ~= ARGV[2] then return {0} end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == '1' then
  local lease = redis.call('ZSCORE', KEYS[3], ARGV[1])
  if lease and tonumber(lease) > now_ms then return {-1} end
end

-- First, because it alone can be refused: a line whose id is taken.
for i = 11, #ARGV, 2 do
  redis.call('XADD', KEYS[2], ARGV[i], 'l', ARGV[i + 1])
end
if #ARGV >= 11 then redis.call('PUBLISH', ARGV[4], '') end

redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[5], 'status', ARGV[6], 'attempt', ARGV[7], 'order', ARGV[8])
if current[2] == 'running' and ARGV[6] ~= 'running' then
  -- Closes this attempt's part of the log: Redis itself refuses its writer from now on.
  redis.call('XSETID', KEYS[2], ARGV[7] .. '-18446744073709551615')
  redis.call('ZREM', KEYS[3], ARGV[1])
end
if ARGV[6] == 'queued' then
  redis.call('SADD', KEYS[4], ARGV[9])
  redis.call('ZADD', KEYS[5], current[3], ARGV[1])
  for _, bell in ipairs({KEYS[8], KEYS[9]}) do
    redis.call('RPUSH', bell, '1')
    redis.call('LTRIM', bell, -64, -1)
  end
elseif ARGV[6] == 'ended' then
  if current[2] == 'queued' then
    redis.call('ZREM', KEYS[5], ARGV[1])
    redis.call('ZREM', KEYS[6], ARGV[1])
  end
  redis.call('ZADD', KEYS[7], string.format('%.0f', now_ms + ARGV[10]), ARGV[1])
end
return {1, unpack(redis.call('HMGET', KEYS[1],
  'owner', 'spec', 'fingerprint', 'created_at', 'rank', 'revision', 'state'))}
