package cache

import "github.com/redis/go-redis/v9"

// The scripts run inside Redis, atomically. Each is sent once and then named by
// its hash. All keys of one script are in one partition and therefore in one
// slot, so that the scripts run on a cluster too. PUBLISH inside a script reaches
// the subscribers of every node of a cluster, from version 6 on.
//
// Times are encoded as in a value's header and compared as two numbers each,
// since Lua's own cannot hold one of 64 bits. A value counts only if it can be
// one of this version and is not from the future.
//
// A lease is a string: its state (h held, f failed), its level (c checkout, b
// lower), the 16 bytes of its holder's token, the failure if it failed, and the
// seal. Whatever does not have this form, or would outlive a lease, is no lease.
const luaShared = `
local function before(a, b)
  local aHigh, aLow = struct.unpack('>I4I4', a)
  local bHigh, bLow = struct.unpack('>I4I4', b)
  return aHigh < bHigh or (aHigh == bHigh and aLow < bLow)
end
local function fetched(value, version, believed)
  if type(value) ~= 'string' or #value < 13 or #value > 4194304 or value:byte(1) ~= version then return nil end
  local time = value:sub(2, 9)
  if before(believed, time) then return nil end
  return time
end
local function read(key)
  local found = redis.pcall('GET', key)
  if type(found) == 'table' and found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then
    return redis.call('GET', key) -- raises the error in the form of the version
  end
  return found
end
local function leaseOf(key)
  local lease = read(key)
  if type(lease) ~= 'string' or #lease < 22 or #lease > 64 then return nil end
  local state, level = lease:sub(1, 1), lease:sub(2, 2)
  if (state ~= 'h' and state ~= 'f') or (level ~= 'c' and level ~= 'b') then return nil end
  local left = redis.call('PTTL', key)
  if left < 0 or left > 2000 then return nil end
  return lease
end
local function errorOf(reply)
  if type(reply) == 'table' and reply.err then return reply.err end
  return ''
end
`

// claimScript acquires the lease, unless the evidence that it would be acquired
// for is stored. The holder also gets the value that is stored, which its own will
// replace.
//
// KEYS value, lease; ARGV lease, the version of values, the oldest time that
// is recent enough, the last that is believed, milliseconds to live, the token
// that was waited for or nothing, 1 to preempt a lower level, a lease to ignore
// or nothing. It returns {'value', value}, {'lease', the lease of another} or
// {'acquired', the value or nothing}.
const claimScript = luaShared + `
local value = read(KEYS[1])
local time = fetched(value, string.byte(ARGV[2]), ARGV[4])
if time and not before(time, ARGV[3]) then return {'value', value} end
local lease = leaseOf(KEYS[2])
if lease and lease ~= ARGV[8] then
  if lease:sub(1, 1) == 'f' then
    if lease:sub(3, 18) == ARGV[6] then return {'lease', lease} end
  elseif lease:sub(2, 2) == 'c' or ARGV[7] ~= '1' then
    return {'lease', lease}
  end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[5])
return {'acquired', time and value or ''}
`

// renewScript prolongs a lease that its holder still has, in its level of now,
// and returns whether it has.
//
// KEYS lease; ARGV token, lease, milliseconds to live.
const renewScript = luaShared + `
local lease = leaseOf(KEYS[1])
if not lease or lease:sub(3, 18) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`

// releaseScript ends a lease that its holder still has. If the fetch failed for
// a reason that concerns other replicas, it leaves the failure for those that
// wait, and publishes it.
//
// KEYS lease; ARGV token, the failed lease or nothing, milliseconds to live,
// channel, message.
const releaseScript = luaShared + `
local lease = leaseOf(KEYS[1])
if not lease or lease:sub(3, 18) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.pcall('PUBLISH', ARGV[4], ARGV[5])
return 1
`

// removeScript deletes an unreadable value, unless it has been replaced since it
// was read.
//
// KEYS value; ARGV the value that was read, or nothing if the key holds no string
// or one that is longer than a value.
const removeScript = luaShared + `
local found = read(KEYS[1])
if type(found) == 'table' or found and (#found > 4194304 or found == ARGV[1]) then return redis.call('DEL', KEYS[1]) end
return 0
`

// heartbeatScript proves that a server accepts writes and messages, and detects
// lost writes.
//
// Each replica writes the age of its process, a clock that nothing sets back,
// under a key of its own. A server on which that key is older than the replica
// has seen it there, or absent, has lost what was written since. If that is more
// than outboxes write again, nothing that was fetched before now can be trusted
// to be the newest: now becomes the floor. The same holds if no replica has sent a
// heartbeat for longer than a fleet restarts, and if a replica asks for it. How
// long that is, the server's clock measures by what is left of the watermark's
// life: a replica whose clock is wrong must not make the others doubt Redis. The
// floor is only raised, unless it is in the future. Now is the later of the
// replica's and the server's: a replica whose clock is behind must not lower the
// floor for replicas that start later. If the user may not call TIME, it is the
// replica's.
//
// A heartbeat may arrive after later ones: the age in Redis is only raised, too,
// unless writes were lost.
//
// A replica that may not publish sets a mark, because the others then receive
// none of its messages. A mark without the form and the life of ours is ignored.
//
// KEYS own age, watermark (the floor), mark; ARGV age of the process in ms, the age
// last seen or nothing, the age that outboxes cover, now, milliseconds for which a
// fleet may be silent, the last time that is believed, 1 to raise the floor,
// channel, message. It returns {1 if writes were lost, floor, 1 if some replica may
// not publish}.
const heartbeatScript = luaShared + `
local watermarkLife, markLife = 172800000, 3000
local function timeOf(seconds, micros)
  local ns = seconds * 1000000000 + micros * 1000
  local high = math.floor(ns / 4294967296)
  return struct.pack('>I4I4', high, ns - high * 4294967296)
end
local now, believed, clock = ARGV[4], ARGV[6], redis.pcall('TIME')
if not clock.err then
  local server = timeOf(tonumber(clock[1]), tonumber(clock[2]))
  if before(now, server) then now, believed = server, timeOf(tonumber(clock[1]) + 1, tonumber(clock[2])) end
end
local age, stored, seen = tonumber(ARGV[1]), tonumber(read(KEYS[1])) or -1, tonumber(ARGV[2]) or -1
local lost = stored < seen
local beyond = lost and stored < tonumber(ARGV[3])
local floor, left = read(KEYS[2]), redis.call('PTTL', KEYS[2])
local silent = left < watermarkLife - tonumber(ARGV[5])
if type(floor) ~= 'string' or #floor ~= 8 or before(believed, floor)
  or (silent or beyond or ARGV[7] == '1') and before(floor, now) then floor = now end
redis.call('SET', KEYS[2], floor, 'PX', watermarkLife)
if not (stored >= age and stored <= age + 60000) then redis.call('SET', KEYS[1], ARGV[1], 'PX', 3600000) end
if errorOf(redis.pcall('PUBLISH', ARGV[8], ARGV[9])) ~= '' then
  redis.call('SET', KEYS[3], '1', 'PX', markLife)
end
local mark, markLeft = read(KEYS[3]), redis.call('PTTL', KEYS[3])
return {lost and 1 or 0, floor, mark == '1' and markLeft > 0 and markLeft <= markLife and 1 or 0}
`

type scripts struct{ put, claim, renew, release, remove, heartbeat, history *redis.Script }

func newScripts() scripts {
	return scripts{
		put:       redis.NewScript(putScript),
		claim:     redis.NewScript(claimScript),
		renew:     redis.NewScript(renewScript),
		release:   redis.NewScript(releaseScript),
		remove:    redis.NewScript(removeScript),
		heartbeat: redis.NewScript(heartbeatScript),
		history:   redis.NewScript(readHistoryScript),
	}
}
