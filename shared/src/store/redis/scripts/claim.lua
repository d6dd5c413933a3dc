-- Gives the most urgent, then oldest, due execution to a worker.
-- KEYS: queues, leases, bell of all queues, last claim of the worker
--       (the other keys share their tag and are made from ARGV[1])
-- ARGV: key prefix, worker, worker as JSON, now as text, lease in ms, ticket, queues to serve (none: all)
-- Returns {1, id, record…}, or {0, ms until the first delayed one is due, or -1}.
local prefix = ARGV[1]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function answer(id)
  return {1, id, unpack(redis.call('HMGET', prefix .. 'x:' .. id,
    'owner', 'spec', 'fingerprint', 'created_at', 'rank', 'revision', 'state'))}
end

-- The answer to this ticket may have been lost on its way.
local last = redis.call('GET', KEYS[4])
local ticket = ARGV[6] .. ' '
if last and string.sub(last, 1, #ticket) == ticket then
  local id = string.sub(last, #ticket + 1)
  local held = redis.call('HMGET', prefix .. 'x:' .. id, 'status', 'worker')
  if held[1] == 'running' and held[2] == ARGV[2] then return answer(id) end
end

local names = {}
for i = 7, #ARGV do names[#names + 1] = ARGV[i] end
local serves_all = #names == 0
if serves_all then names = redis.call('SMEMBERS', KEYS[1]) end

local next_due = -1
local best, best_queue, best_score
while true do
  best = nil
  for _, name in ipairs(names) do
    local ready, delayed = prefix .. 'ready:' .. name, prefix .. 'delayed:' .. name
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now_ms, 'LIMIT', 0, 100)) do
      redis.call('ZREM', delayed, id)
      local score = redis.call('HGET', prefix .. 'x:' .. id, 'score')
      if score then redis.call('ZADD', ready, score, id) end
    end
    local later = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
    if later[2] and (next_due < 0 or later[2] - now_ms < next_due) then
      next_due = math.max(later[2] - now_ms, 1)
    end
    local first = redis.call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    if first[1] then
      if not best or tonumber(first[2]) < best_score then
        best, best_queue, best_score = first[1], name, tonumber(first[2])
      end
    elseif not later[1] then
      redis.call('SREM', KEYS[1], name)
      redis.call('DEL', prefix .. 'bell:' .. name)
    end
  end
  if not best then
    -- Nothing waits, so whoever was rung for it has been served.
    if serves_all then redis.call('DEL', KEYS[3]) end
    for _, name in ipairs(names) do redis.call('DEL', prefix .. 'bell:' .. name) end
    return {0, next_due}
  end
  redis.call('ZREM', prefix .. 'ready:' .. best_queue, best)
  if redis.call('HGET', prefix .. 'x:' .. best, 'status') == 'queued' then break end
end

local record = prefix .. 'x:' .. best
local attempt = redis.call('HINCRBY', record, 'attempt', 1)
redis.call('HINCRBY', record, 'revision', 1)
local state = '{"status":"running","attempt":' .. attempt .. ',"worker":' .. ARGV[3]
  .. ',"started_at":"' .. ARGV[4] .. '"}'
redis.call('HSET', record, 'status', 'running', 'worker', ARGV[2], 'order', '0', 'state', state)
redis.call('ZADD', KEYS[2], now_ms + ARGV[5], best)
redis.call('SET', KEYS[4], ticket .. best, 'EX', 600)
return answer(best)
