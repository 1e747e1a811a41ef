package cache

// luaFeed is what scripts that write changes share. now is in ms, and so is retention.
const luaFeed = `
local function millisNow(replica)
  local clock = redis.pcall('TIME')
  if clock.err then return tonumber(replica) end
  return tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end
local function millisOf(id) return tonumber(string.match(id, '^%d+')) end
local function noteRemoved(key, id, now, retention)
  if millisOf(id) > now then id = string.format('%.0f-0', now) end
  redis.pcall('SET', key, id, 'PX', retention)
end
local function removeFeed(feed, removedKey, now, retention)
  redis.pcall('DEL', feed)
  noteRemoved(removedKey, string.format('%.0f-0', now), now, retention)
end
local function addChange(feed, removedKey, change, now, retention)
  local id = redis.pcall('XADD', feed, '*', 'event', change)
  local refused = errorOf(id)
  if refused == '' and millisOf(id) <= now + 3600000 then return '' end
  if refused == '' or string.find(refused, 'WRONGTYPE', 1, true) or string.find(refused, 'top item', 1, true)
    or string.find(refused, 'exhausted', 1, true) then
    removeFeed(feed, removedKey, now, retention)
    return errorOf(redis.pcall('XADD', feed, '*', 'event', change))
  end
  return refused
end
local function trim(feed, removedKey, now, retention, most)
  local excess, oldest = redis.call('XLEN', feed) - most, redis.call('XRANGE', feed, '-', '+', 'COUNT', 1)[1]
  if not oldest or (excess <= 0 and millisOf(oldest[1]) >= now - retention) then return 0 end
  local ids = {}
  for i, entry in ipairs(redis.call('XRANGE', feed, '-', '+', 'COUNT', 16)) do
    if i <= excess or millisOf(entry[1]) < now - retention then ids[i] = entry[1] end
  end
  redis.call('XDEL', feed, unpack(ids))
  noteRemoved(removedKey, ids[#ids], now, retention)
  return #ids
end
-- addChanges adds ARGV[first] to ARGV[last], and returns the error of the first
-- that was refused and how many others were removed.
local function addChanges(feed, removedKey, now, retention, most, first, last)
  local refused, removed = '', 0
  for i = first, last do
    if refused == '' then refused = addChange(feed, removedKey, ARGV[i], now, retention) end
  end
  if refused ~= '' then return refused, 0 end
  local done, result = pcall(trim, feed, removedKey, now, retention, most)
  if not done then
    removeFeed(feed, removedKey, now, retention)
    if type(result) == 'table' then result = result.err end
    return tostring(result), 0
  end
  redis.call('PEXPIRE', feed, retention)
  return '', result
end
`

// luaHistory keeps the history of a key: a list, newest first, of entries of the form
// of encodePast. An entry that is not newer than the newest is there already.
const luaHistory = `
local function timeOfPast(entry, version, believed)
  return type(entry) == 'string' and fetched(entry:sub(9), version, believed) or nil
end
-- headOf returns the newest entry; '' if there is none, or a long one, and '!' if it may not be read.
local function headOf(key, version, believed)
  local head = redis.pcall('LRANGE', key, 0, 0)
  if head.err then return string.find(head.err, 'WRONGTYPE', 1, true) and '' or '!' end
  head = head[1] or ''
  return #head <= 16384 and timeOfPast(head, version, believed) and head or ''
end
-- confirm keeps when the facts were last fetched for as long as the history.
local function confirm(key, confirmedKey, value)
  local refused = errorOf(redis.pcall('SET', confirmedKey, value, 'PX', 7776000000))
  if refused == '' then refused = errorOf(redis.pcall('PEXPIRE', key, 7776000000)) end
  return refused
end
-- addHistory adds ARGV[first] and those behind it. If the evidence before is not stored
-- any longer, its last confirmation goes with the first.
local function addHistory(key, version, believed, first, confirmation)
  local head = redis.pcall('LRANGE', key, 0, 0)
  local refused = errorOf(head)
  if string.find(refused, 'WRONGTYPE', 1, true) then
    redis.pcall('DEL', key)
    refused = ''
  end
  if refused ~= '' then return refused end
  local time, new = timeOfPast(head[1], version, believed), {}
  for i = first, #ARGV do
    if not time or before(time, ARGV[i]:sub(10, 17)) then new[#new + 1] = ARGV[i] end
  end
  if #new == 0 then return '' end
  if type(confirmation) == 'string' and #confirmation <= 32 then new[1] = new[1] .. confirmation end
  refused = errorOf(redis.pcall('LPUSH', key, unpack(new)))
  if refused == '' then refused = errorOf(redis.pcall('LTRIM', key, 0, 49)) .. errorOf(redis.pcall('PEXPIRE', key, 7776000000)) end
  if refused ~= '' then redis.pcall('DEL', key) end -- it must not grow or stay for ever
  return refused
end
`

// luaReviews keeps the sorted sets of reviews.
const luaReviews = `
local function track(dueKey, sinceKey, now, member, isUnder, factor, giveUp, most)
  if isUnder ~= '1' then
    redis.pcall('ZREM', dueKey, member)
    redis.pcall('ZREM', sinceKey, member)
    return 0
  end
  local since = redis.pcall('ZSCORE', sinceKey, member)
  local known = redis.pcall('ZSCORE', dueKey, member)
  if string.find(errorOf(since) .. errorOf(known), 'WRONGTYPE', 1, true) then
    redis.pcall('DEL', dueKey)
    redis.pcall('DEL', sinceKey)
    since, known = false, false
  end
  since = type(since) == 'string' and tonumber(since) or nil
  if since and (since < 0 or since > now + 3600000) then since = nil end
  if since and now - since >= giveUp then return 0 end -- if it is still due, abandonScript removes it
  local size = redis.pcall('ZCARD', dueKey)
  if type(size) ~= 'number' or (type(known) ~= 'string' and size >= most) then return 1 end
  if not since then
    since = now
    redis.pcall('ZREMRANGEBYSCORE', sinceKey, '-inf', now - 2 * giveUp)
    if errorOf(redis.pcall('ZADD', sinceKey, now, member)) ~= '' then return 1 end
  end
  local due = math.floor(now + math.min(math.max((now - since) / 10, 120000), 3600000) * factor)
  if errorOf(redis.pcall('ZADD', dueKey, string.format('%.0f', due), member)) ~= '' then return 1 end
  redis.pcall('PEXPIRE', dueKey, giveUp + 3600000)
  redis.pcall('PEXPIRE', sinceKey, 2 * giveUp)
  return 0
end
`

// putScript publishes a value and stores it, unless the stored one was fetched at
// the same time or later; and ends the writer's lease. It publishes even if Redis
// refuses the write.
//
// With the value it writes the changes that the value brings about. The writer
// computes them from what it believes to be stored; if another value is stored, the
// script changes nothing and returns that. So the changes of a key link without a
// gap, whichever replicas write it. A change that Redis refuses does not keep the
// value out.
//
// The feed is a stream. If the key holds no stream, or one whose ids do not follow
// the clock, it is begun anew. Each write of a change removes up to 16 that are too
// old or too many; the newest id that was removed is kept, so that readers notice. A
// feed that cannot be trimmed is removed.
//
// Each change is also added to the history of its key, which has the last 50. Each write
// stores besides when these facts were fetched, and keeps both for 90 days.
//
// If newer evidence is stored, or the same, the script returns it with the newest entry
// of the history, by which the writer knows whether a change was written since. If one
// is missing, see [sharedTier.missing], the writer runs the script once more to add the
// changes only, which it does if the stored value and the newest entry are still those.
//
// Evidence of a customer under review has its member in two sorted sets: by the time
// at which it is due, and by the time since which it is under review. Due is after a
// tenth of the time since then. A review that was given up stays in the second set only. All
// other evidence has no member. The sets are as large as their bound, or less.
//
// KEYS value, lease, feed, newest id removed from it, reviews by due time, reviews
// since, history, last confirmation; ARGV value, milliseconds to live, the last time that is believed, the
// writer's token or nothing, channel, the message's header, the time and the last
// 4 bytes of the value believed to be stored or nothing, the feed's retention in ms and number of events,
// the member of the review, 1 if it is under review, the factor of its due time, the
// time in ms after which it is given up, the number of members, the replica's time in
// ms, nothing or, to add the changes only, the time of the newest entry of the history
// or '-', the confirmation, changes, as many entries of the history.
//
// It returns {'newer' or, if it was fetched at the same time, 'same', value, the
// newest entry of the history, nothing, or '!' if it may not be read} if such evidence
// is stored, {'other', value or nothing} if another value is stored than the writer
// believes, otherwise {'stored', the error of the write or nothing, the error of the
// publication or nothing, the error of the changes or nothing, how many changes were
// removed, 1 if there was no room for the review, the error of the history or nothing}.
const putScript = luaShared + luaFeed + luaHistory + luaReviews + `
local new, newTime = ARGV[1], ARGV[1]:sub(2, 9)
local stored = read(KEYS[1])
local time = fetched(stored, new:byte(1), ARGV[3])
local isNewer = time and before(newTime, time)
local isThere = isNewer or time == newTime
local isKnown = (time and time .. stored:sub(-4) or '') == ARGV[7]
if not isThere and not isKnown then return {'other', time and stored or ''} end
local lease = leaseOf(KEYS[2])
if lease and lease:sub(3, 18) == ARGV[4] then redis.pcall('DEL', KEYS[2]) end
if isThere then
  local head = headOf(KEYS[7], new:byte(1), ARGV[3])
  if not isKnown or (timeOfPast(head, new:byte(1), ARGV[3]) or '-') ~= ARGV[16] then
    if not isNewer then redis.pcall('PUBLISH', ARGV[5], ARGV[6] .. new) end
    return {isNewer and 'newer' or 'same', stored, head}
  end
end
local refused, lost, removed, untracked, forgotten = '', '', 0, 0, ''
if not isThere then refused = errorOf(redis.pcall('SET', KEYS[1], new, 'PX', ARGV[2])) end
if refused == '' then
  local now = millisNow(ARGV[15])
  local changes = (#ARGV - 17) / 2
  if changes > 0 then
    lost, removed = addChanges(KEYS[3], KEYS[4], now, tonumber(ARGV[8]), tonumber(ARGV[9]), 18, 17 + changes)
    forgotten = addHistory(KEYS[7], new:byte(1), ARGV[3], 18 + changes, not time and redis.pcall('GET', KEYS[8]))
  end
  if isThere then return {'stored', '', '', lost, tostring(removed), '0', forgotten} end
  forgotten = forgotten .. confirm(KEYS[7], KEYS[8], ARGV[17])
  untracked = track(KEYS[5], KEYS[6], now, ARGV[10], ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]))
end
return {'stored', refused, errorOf(redis.pcall('PUBLISH', ARGV[5], ARGV[6] .. new)), lost, tostring(removed), tostring(untracked), forgotten}
`
