-- Append entries to an organization's audit stream and keep its newest.
--
-- KEYS  1 audit (stream of entries with one field, "entry")
-- ARGV  1 how many entries stay   then the entries' bytes
-- Returns how many there are; -1 where the key holds another type.

local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'stream' and found ~= 'none' then return -1 end
for n = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'entry', ARGV[n]) end
redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', ARGV[1])
return redis.call('XLEN', KEYS[1])
