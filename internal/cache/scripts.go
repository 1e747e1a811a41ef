package cache

import "github.com/redis/go-redis/v9"

// The scripts run inside Redis, where nothing comes between their steps. Each
// is sent once and then named by its hash. All keys of one customer share a
// slot, so that they run on a cluster as well.
//
// Times stand as in a value's header and are compared as two numbers each, as
// Lua's own cannot hold one of 64 bits. What lies under a value's key counts
// only where it can be a value of this version and is not from the future.
//
// A lease is a string: its state (h held, f failed), its lane (u urgent,
// b background), the 16 bytes of its holder's token and, of a failed one, why.
const luaShared = `
local function before(a, b)
  local aHigh, aLow = struct.unpack('>I4I4', a)
  local bHigh, bLow = struct.unpack('>I4I4', b)
  return aHigh < bHigh or (aHigh == bHigh and aLow < bLow)
end
local function fetched(value, version, believed)
  if type(value) ~= 'string' or #value < 13 or value:byte(1) ~= version then return nil end
  local time = value:sub(2, 9)
  if before(believed, time) then return nil end
  return time
end
local function read(key)
  local found = redis.pcall('GET', key)
  if type(found) == 'table' and found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then
    error(found)
  end
  return found
end
local function leaseOf(key)
  local lease = read(key)
  if type(lease) ~= 'string' or #lease < 18 then return nil end
  return lease
end
`

// keepNewerScript writes a value unless the one there was fetched at the same
// time or later, and ends the writer's lease.
//
// KEYS value, lease; ARGV value, milliseconds to live, the last time that is
// believed, the writer's token or nothing. It returns 1 where it wrote, 2 where
// evidence of the same time was there, 0 where newer was.
const keepNewerScript = luaShared + `
local lease = leaseOf(KEYS[2])
if lease and lease:sub(3, 18) == ARGV[4] then redis.call('DEL', KEYS[2]) end
local new = ARGV[1]
local time = fetched(read(KEYS[1]), new:byte(1), ARGV[3])
if time and not before(time, new:sub(2, 9)) then
  if before(new:sub(2, 9), time) then return 0 end
  return 2
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return 1
`

// claimScript asks for the lease, unless what it would be taken for is there.
//
// KEYS value, lease; ARGV token, the version of values, the oldest time that
// answers, the last that is believed, milliseconds to live, lane, the token
// that was waited for or nothing, 1 to take the lease from the background. It
// returns {'value', value}, {'failed', lease}, {'busy', lease} or {'won'}.
const claimScript = luaShared + `
local value = read(KEYS[1])
local time = fetched(value, string.byte(ARGV[2]), ARGV[4])
if time and not before(time, ARGV[3]) then return {'value', value} end
local lease = leaseOf(KEYS[2])
if lease then
  local state, lane, holder = lease:sub(1, 1), lease:sub(2, 2), lease:sub(3, 18)
  if state == 'f' and holder == ARGV[7] then return {'failed', lease} end
  if state == 'h' and not (lane == 'b' and ARGV[8] == '1') then return {'busy', lease} end
end
redis.call('SET', KEYS[2], 'h' .. ARGV[6] .. ARGV[1], 'PX', ARGV[5])
return {'won'}
`

// renewScript prolongs a lease that its holder still has, and says whether it has.
//
// KEYS lease; ARGV token, milliseconds to live.
const renewScript = luaShared + `
local lease = leaseOf(KEYS[1])
if not lease or lease:sub(3, 18) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`

// yieldScript ends a lease that its holder still has: it leaves why the fetch
// failed for those who wait, or nothing.
//
// KEYS lease; ARGV token, the failure or nothing, milliseconds to live.
const yieldScript = luaShared + `
local lease = leaseOf(KEYS[1])
if not lease or lease:sub(3, 18) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], 'f' .. lease:sub(2, 18) .. ARGV[2], 'PX', ARGV[3])
return 1
`

type scripts struct{ keepNewer, claim, renew, yield *redis.Script }

func newScripts() scripts {
	return scripts{
		keepNewer: redis.NewScript(keepNewerScript),
		claim:     redis.NewScript(claimScript),
		renew:     redis.NewScript(renewScript),
		yield:     redis.NewScript(yieldScript),
	}
}
