-- How full the queues of one shard are.
-- KEYS: queues (the others share its tag and are made from ARGV[1])
-- ARGV: key prefix, start of the ranks (ms since 1970)
-- Returns for each queue {name, ready, delayed, age in ms of the oldest ready one or -1}.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local ready = ARGV[1] .. 'ready:' .. name
  local age = -1
  for urgency = 0, 9 do
    local floor = urgency * 2 ^ 49
    local oldest = redis.call('ZRANGEBYSCORE', ready, string.format('%.0f', floor),
      string.format('(%.0f', floor + 2 ^ 49), 'WITHSCORES', 'LIMIT', 0, 1)
    if oldest[2] then
      age = math.max(age, now_ms - ARGV[2] - math.floor((oldest[2] - floor) / 1000))
    end
  end
  answers[#answers + 1] = {name, redis.call('ZCARD', ready),
    redis.call('ZCARD', ARGV[1] .. 'delayed:' .. name), age}
end
return answers
