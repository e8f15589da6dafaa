-- What every peer does in Redis, in one call: keep a user's status, and find the user's endpoints.
--
-- KEYS  1 user (hash)   2 the user's endpoints (set)   3 when each user was last heard of (sorted set)
-- ARGV  1 status document   2 epoch milliseconds   3 user
-- Returns the user's new version, then the endpoints.
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'status_ms', ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[3])
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
return {version, unpack(redis.call('SMEMBERS', KEYS[2]))}
