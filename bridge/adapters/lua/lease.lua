-- Take the lease, renew it, or give it back. Whoever takes it over from another raises its epoch.
--
-- KEYS  1 leader (hash: "bridge", "epoch", "until_ms" = Redis TIME at which the lease ends, epoch ms)
-- ARGV  1 bridge   2 for how long, ms; 0 gives it back   3 a bridge that may be dispossessed before its time ("" nobody)
--       4 the least epoch to take it with
-- Returns {the bridge that holds it ("" nobody), its epoch, ms left}.

local found = redis.call('HMGET', KEYS[1], 'bridge', 'epoch', 'until_ms')
local holder, epoch, until_ms = found[1] or '', tonumber(found[2] or '0'), tonumber(found[3] or '0')
if not epoch or not until_ms then return redis.error_reply('ERR the lease is no lease') end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, ttl, least = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])
local function digits(number) return string.format('%.0f', number) end

if ttl == 0 then
  if holder == me then redis.call('HSET', KEYS[1], 'bridge', '', 'until_ms', '0') end
  return {'', digits(epoch), 0}
end
if holder ~= me then
  if holder ~= '' and until_ms > now and holder ~= ARGV[3] then return {holder, digits(epoch), until_ms - now} end
  epoch = epoch + 1
end
epoch = math.max(epoch, least)
redis.call('HSET', KEYS[1], 'bridge', me, 'epoch', digits(epoch), 'until_ms', digits(now + ttl))
return {me, digits(epoch), ttl}
