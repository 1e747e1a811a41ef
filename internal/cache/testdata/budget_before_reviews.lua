local window, maxPause, debt = 61000000, 600000000, 10000000
local skew = 5000000
local whole, minFactor, growthStep, growthGap = 1000000, 100000, 3000, 5000000
local kind, perMinute = ARGV[2], math.min(math.max(tonumber(ARGV[3]), 0.01), 1000000)
local part, calls = tonumber(ARGV[4]), tonumber(ARGV[5])
local function limits(factor)
  local rate = perMinute * factor / whole
  local burst = math.max(1, rate / 10)
  local interval = math.ceil(window / (rate - burst + 1))
  return interval, math.floor(burst * interval)
end
local function bounded(text, low, high)
  local n = tonumber(text)
  if n and n >= low and n <= high then return math.floor(n) end
  return nil
end
local held = redis.pcall('HMGET', KEYS[1], 'tat', 'factor', 'grown', 'pause', 'now')
if held.err then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return redis.call('HMGET', KEYS[1], 'tat') end
  redis.call('DEL', KEYS[1])
  held = {}
end
local back, moved = (bounded(held[5], 0, 9e15) or now) - now, 0
if back > skew then moved = back elseif back > 0 then now = now + back end
local function time(text)
  local n = bounded(text, 0, 9e15)
  return n and math.max(n - moved, 0)
end
local tat, fresh = time(held[1]), 0
local seed = tonumber(ARGV[10])
if seed == 0 then seed = whole end
local factor = bounded(held[2], minFactor, whole) or math.min(math.max(seed, minFactor), whole)
local grown = math.min(time(held[3]) or now, now)
local pause = math.min(time(held[4]) or now + tonumber(ARGV[11]), now + maxPause)
local interval, depth = limits(factor)
if not tat then
  tat, fresh = now, 1
  if ARGV[9] == '1' then tat = now + depth end
end
local function bound() return math.max(now, pause) + depth + math.max(debt, interval) end
tat = math.min(tat, bound())
local granted, wait = 0, 0
if kind == 'take' and pause <= now then
  local reserve = math.floor(depth * part)
  if calls >= 0 then reserve = math.max(reserve, calls * interval) else reserve = math.min(reserve, depth - interval) end
  local start = math.max(tat, now)
  if reserve + interval > depth then
    wait = maxPause
  else
    wait = math.max(0, start + interval + reserve - depth - now)
    local steps = math.floor(math.min(now - grown, growthGap) / growthStep)
    if wait > 0 and calls < 0 and steps > 0 and factor < whole then
      factor = math.min(factor + steps, whole)
      if now - grown > growthGap then grown = now else grown = grown + steps * growthStep end
    end
    if wait <= tonumber(ARGV[6]) then granted, tat = 1, start + interval end
  end
elseif kind == 'charge' then
  tat = math.min(math.max(tat, now) + interval * tonumber(ARGV[7]), bound())
elseif kind == 'pause' then
  if pause <= now then factor = math.max(math.floor(factor * 7 / 10), minFactor) end
  pause = math.max(pause, now + math.min(tonumber(ARGV[8]), maxPause))
  grown = pause
  interval, depth = limits(factor)
  tat = math.max(tat, pause + depth)
end
redis.call('HSET', KEYS[1], 'tat', string.format('%.0f', tat), 'factor', factor, 'grown', string.format('%.0f', grown),
  'pause', string.format('%.0f', pause), 'now', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], 2100000)
return {granted, wait, math.max(pause - now, 0), math.max(tat - now, 0), factor, fresh}
