-- Shut every bridge with a lower epoch out of an organization, and forget the batch tokens that they will never ask for.
--
-- KEYS  1 bridges (hash, see commit.lua)
-- ARGV  1 epoch   2 the token field to keep
-- Returns the epoch that now holds: a higher one where it was there already.

if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end -- gone, or spoilt: commits say which
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') or 0
if epoch > tonumber(ARGV[1]) then return epoch end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 6) == 'token:' and field ~= ARGV[2] then redis.call('HDEL', KEYS[1], field) end
end
return tonumber(ARGV[1])
