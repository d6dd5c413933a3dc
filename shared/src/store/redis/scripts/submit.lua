-- Puts a new execution into its queue, or returns the one that has this id.
-- KEYS: record, log, index, queues, ready, delayed, clock, bell of the queue, bell of all queues
-- ARGV: id, owner, spec, fingerprint, queue, urgency (0 is most urgent), delay in ms, state,
--       first line of the log, start of the ranks (ms since 1970)
local existing = redis.call('HMGET', KEYS[1],
  'owner', 'spec', 'fingerprint', 'created_at', 'rank', 'revision', 'state')
if existing[1] then
  return {0, unpack(existing)}
end

-- The rank is this shard's time in µs, made unique: it orders queues and lists alike.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local rank = (time[1] - ARGV[10] / 1000) * 1000000 + time[2]
rank = math.max(rank, tonumber(redis.call('GET', KEYS[7]) or 0) + 1)
local rank_text = string.format('%.0f', rank)
local created_at = string.format('%.0f', now_ms)
local score = string.format('%.0f', ARGV[6] * 2 ^ 49 + rank)
redis.call('SET', KEYS[7], rank_text)

local fields = {ARGV[2], ARGV[3], ARGV[4], created_at, rank_text, '1', ARGV[8]}
redis.call('HSET', KEYS[1],
  'owner', fields[1], 'spec', fields[2], 'fingerprint', fields[3], 'created_at', fields[4],
  'rank', fields[5], 'revision', fields[6], 'state', fields[7],
  'status', 'queued', 'attempt', '0', 'worker', '', 'order', '0', 'queue', ARGV[5], 'score', score)
redis.call('XADD', KEYS[2], '0-1', 'l', ARGV[9])
redis.call('ZADD', KEYS[3], rank_text, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[5])
if tonumber(ARGV[7]) > 0 then
  redis.call('ZADD', KEYS[6], string.format('%.0f', now_ms + ARGV[7]), ARGV[1])
else
  redis.call('ZADD', KEYS[5], score, ARGV[1])
end
-- A delayed execution rings too: whoever waits must learn of the new time.
for _, bell in ipairs({KEYS[8], KEYS[9]}) do
  redis.call('RPUSH', bell, '1')
  redis.call('LTRIM', bell, -64, -1)
end
return {1, unpack(fields)}
