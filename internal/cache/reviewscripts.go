package cache

// luaDue is what the scripts about due reviews share. No review is due further ahead
// than maxAhead: if one is, the server's clock was set back since, and it is due now.
const luaDue = `
local maxAhead, dueKey, sinceKey = 4200000, KEYS[1], KEYS[2]
local function millis(n) return string.format('%.0f', n) end
-- of runs a command on a sorted set. A key that holds none is deleted.
local function of(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if errorOf(reply) == '' then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then return redis.call(command, key, ...) end
  redis.call('DEL', key)
  return redis.call(command, key, ...)
end
`

// lookScript counts the reviews of a partition. If asked, it also looks for reviews
// that have lost their due time, because the server has evicted it, and makes them due.
//
// KEYS reviews by due time, reviews since; ARGV the replica's time in ms, the time in
// ms after which a review is given up, a random number or -1. It returns {how many
// there are, how many are due, the time in ms for which the first has been due}.
const lookScript = luaShared + luaFeed + luaDue + `
local now, tracked, from = millisNow(ARGV[1]), of('ZCARD', dueKey), tonumber(ARGV[3])
local size = from >= 0 and of('ZCARD', sinceKey) or 0
if size > tracked then
  from = math.max(from % size - 128, 0)
  local found = of('ZRANGE', sinceKey, from, from + 255, 'WITHSCORES')
  for i = 1, #found, 2 do
    local since = tonumber(found[i + 1]) or 0
    if since > now - tonumber(ARGV[2]) and not of('ZSCORE', dueKey, found[i]) then
      redis.call('ZADD', dueKey, millis(now), found[i])
      redis.call('PEXPIRE', dueKey, tonumber(ARGV[2]) + 3600000)
      tracked = tracked + 1
    end
  end
end
local first, due, late = of('ZRANGEBYSCORE', dueKey, '-inf', millis(now), 'WITHSCORES', 'LIMIT', 0, 1), 0, 0
if first[1] then
  due, late = of('ZCOUNT', dueKey, '-inf', millis(now)), math.min(now - (tonumber(first[2]) or 0), 1e12)
end
return {tracked, due + of('ZCOUNT', dueKey, '(' .. millis(now + maxAhead), '+inf'), late}
`

// takeScript takes the reviews of a partition that have been due for longest, and
// makes them due again a while later. Members that are none of ours are removed.
//
// KEYS reviews by due time, reviews since; ARGV the replica's time in ms, how many,
// the while in ms. It returns {the time in ms, member, due, since, …}.
const takeScript = luaShared + luaFeed + luaDue + `
local now, left, examined = millisNow(ARGV[1]), tonumber(ARGV[2]), 0
local again, taken = millis(now + tonumber(ARGV[3])), {millis(now)}
local function ours(member)
  if #member > 64 then return false end
  local id, facet = string.match(member, '^([0-9a-f]+):(%a+)$')
  return id and #id == 32 and (facet == 'account' or facet == 'qualifications')
end
local function take(low, high)
  while left > 0 and examined < 1024 do
    local due = of('ZRANGEBYSCORE', dueKey, low, high, 'WITHSCORES', 'LIMIT', 0, left)
    if #due == 0 then return end
    for i = 1, #due, 2 do
      local member = due[i]
      examined = examined + 1
      if ours(member) then
        local held = tonumber(of('ZSCORE', sinceKey, member) or nil)
        local since = held and held >= 0 and held <= now + 3600000 and math.floor(held) or now
        if since ~= held then redis.call('ZADD', sinceKey, millis(since), member) end
        redis.call('ZADD', dueKey, again, member)
        for _, value in ipairs({member, due[i + 1], millis(since)}) do taken[#taken + 1] = value end
        left = left - 1
      else
        redis.call('ZREM', dueKey, member)
        of('ZREM', sinceKey, member)
      end
    end
  end
end
take('-inf', millis(now))
take('(' .. millis(now + maxAhead), '+inf')
return taken
`

// rescheduleScript changes when a review is due, unless that has changed.
//
// KEYS reviews by due time; ARGV member, due, the time to be due at.
const rescheduleScript = luaShared + luaDue + `
if tonumber(of('ZSCORE', dueKey, ARGV[1]) or nil) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', dueKey, ARGV[3], ARGV[1])
return 1
`

// abandonScript removes a review and adds its end to the feed, unless the review has
// ended or another one has begun. Its member stays among those since, so that it is
// not listed again, see [putScript]. If the user may not write to the feed, the review
// is removed nevertheless.
//
// KEYS reviews by due time, reviews since, feed, newest id removed from it; ARGV
// member, since, the replica's time in ms, the feed's retention in ms and number of
// events, event. It returns {1 if it was removed, the error of the event or nothing,
// how many changes were removed}.
const abandonScript = luaShared + luaFeed + luaDue + `
if tonumber(of('ZSCORE', sinceKey, ARGV[1]) or nil) ~= tonumber(ARGV[2]) or not of('ZSCORE', dueKey, ARGV[1]) then
  return {'0', '', '0'}
end
local refused, removed = addChanges(KEYS[3], KEYS[4], millisNow(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), 6, 6)
if refused ~= '' and not string.find(refused, 'NOPERM', 1, true) and not string.find(refused, "can't run", 1, true) then
  return {'0', refused, '0'}
end
redis.call('ZREM', dueKey, ARGV[1])
return {'1', refused, tostring(removed)}
`

// reviewPageScript lists reviews of a partition in the order of the time since which,
// and member.
//
// KEYS reviews by due time, reviews since; ARGV the time since which, a member behind
// which to begin or nothing, how many. It returns {member, since, due, …}.
const reviewPageScript = luaShared + luaDue + `
local page, left, offset = {}, tonumber(ARGV[3]), 0
while true do
  local found = of('ZRANGEBYSCORE', sinceKey, ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', offset, 256)
  for i = 1, #found, 2 do
    local member, since = found[i], found[i + 1]
    local due = #member <= 64 and (ARGV[2] == '' or member > ARGV[2] or tonumber(since) ~= tonumber(ARGV[1])) and of('ZSCORE', dueKey, member)
    if due then
      for _, value in ipairs({member, since, due}) do page[#page + 1] = value end
      left = left - 1
      if left <= 0 then return page end
    end
  end
  if #found < 512 then return page end
  offset = offset + 256
end
`
