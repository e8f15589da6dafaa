-- Change who owns an endpoint id, only if the expected owner still does. What already stands as wanted counts as
-- taken, so that a claim whose answer was lost can be asked again.
--
-- KEYS  1 the endpoint's owner (string)
-- ARGV  1 the owner expected, as stored ("" nobody)   2 the owner wanted ("" nobody)
-- Returns 1 where it took, 0 where somebody else owns it.

local held = redis.call('GET', KEYS[1]) or ''
if held == ARGV[2] then return 1 end
if held ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1
