-- Renews leases of one shard.
-- KEYS: leases (records share its tag and are made from ARGV[1])
-- ARGV: key prefix, lease in ms, then id, attempt and worker of each lease
-- Returns for each lease: 0 lost, 1 renewed, 2 renewed and to be cancelled, 3 renewed and to be paused.
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
local answers = {}
for i = 3, #ARGV, 3 do
  local held = redis.call('HMGET', ARGV[1] .. 'x:' .. ARGV[i], 'status', 'attempt', 'worker', 'order')
  if held[1] == 'running' and held[2] == ARGV[i + 1] and held[3] == ARGV[i + 2] then
    redis.call('ZADD', KEYS[1], until_ms, ARGV[i])
    answers[#answers + 1] = (held[4] or 0) + 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
