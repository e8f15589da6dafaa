-- Apply one organization's changes at once, or not at all: every version and every key's type is checked before the
-- first write. A token asked again is answered as before and not done again.
--
-- KEYS  1 bridges (hash: "floor", "epoch" of the lease, "token:<bridge>" = "<token> <journal entry id or ->")
--       2 journal (stream)   3 deadlines (sorted set)
--       then the records to write, the records to check, the indexes (sorted sets)
-- ARGV  1 token   2 this bridge's token field   3 bridge   4 floor to raise to (version, 0 leaves it)
--       5 journal entries (0 or 1)   6 records to write   7 records to check
--       8 deadlines to set   9 deadlines to take off   10 indexes   11 this bridge's epoch
--       then the expected start of each record to write or check: "<version>:", or "" where it must be absent;
--       the new text of each record to write: "<version>:<schema>:<json>", or "" to delete it;
--       registry clock ms and member of each deadline to set; the members to take off;
--       per index the number to add, the number to remove, "0" and member of each to add, the members to remove;
--       the journal entry's bytes, last
-- Returns {"committed", journal entry id or "-"}, {"conflict", number of the key in KEYS} where a record changed or a
--       created one is not above the floor, {"corrupt", number} where a key holds the wrong type or no record,
--       {"fenced", 0} where a bridge of a higher epoch has taken over.

local FIRST, HEAD, CHUNK = 4, 11, 1000 -- CHUNK is even, so that pairs stay together; unpack takes no more at once
local floor_to, journals = tonumber(ARGV[4]), tonumber(ARGV[5])
local writes, checks = tonumber(ARGV[6]), tonumber(ARGV[7])
local due, undue, indexes = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local records = writes + checks
local texts_at = HEAD + records

-- A right that lacks would stop the script halfway through its writes.
for _, command in ipairs({'DEL', 'HMGET', 'HSET', 'MGET', 'MSET', 'TYPE', 'XADD', 'ZADD', 'ZREM'}) do
  if not redis.acl_check_cmd(command, KEYS[1], KEYS[1]) then return redis.error_reply('NOPERM no right to ' .. command) end
end

local known = redis.pcall('HMGET', KEYS[1], 'floor', ARGV[2], 'epoch')
if known.err then return {'corrupt', 1} end
local epoch, own_epoch = tonumber(known[3] or '0'), tonumber(ARGV[11])
if not epoch then return {'corrupt', 1} end
if epoch > own_epoch then return {'fenced', 0} end
if known[2] then
  local token, entry = string.match(known[2], '^(.*) (%S+)$')
  if token == ARGV[1] then return {'committed', entry} end
end
local floor = tonumber(known[1] or '0')
if not floor then return {'corrupt', 1} end

local function is_type(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end

for start = 1, records, CHUNK do
  local stop = math.min(start + CHUNK - 1, records)
  local stored = redis.call('MGET', unpack(KEYS, FIRST + start - 1, FIRST + stop - 1))
  for n = start, stop do
    local text, expected, at = stored[n - start + 1], ARGV[HEAD + n], FIRST + n - 1
    if text then
      if expected == '' or string.find(text, expected, 1, true) ~= 1 then
        return {string.find(text, '^%d+:%d+:') and 'conflict' or 'corrupt', at}
      end
    else -- MGET answers nil for a wrong type, too
      if not is_type(KEYS[at], 'none') then return {'corrupt', at} end
      if expected ~= '' then return {'conflict', at} end
      local version = n <= writes and string.match(ARGV[texts_at + n], '^%d+')
      if version and tonumber(version) <= floor then return {'conflict', at} end
    end
  end
end
if due + undue > 0 and not is_type(KEYS[3], 'zset') then return {'corrupt', 3} end
for n = FIRST + records, FIRST + records + indexes - 1 do
  if not is_type(KEYS[n], 'zset') then return {'corrupt', n} end
end
if journals > 0 and not is_type(KEYS[2], 'stream') then return {'corrupt', 2} end

local function chunks(first, last, apply)
  for start = first, last, CHUNK do apply(start, math.min(start + CHUNK - 1, last)) end
end

local set, deleted = {}, {}
for n = 1, writes do
  local key, text = KEYS[FIRST + n - 1], ARGV[texts_at + n]
  if text == '' then
    deleted[#deleted + 1] = key
  else
    set[#set + 1] = key
    set[#set + 1] = text
  end
end
chunks(1, #set, function(first, last) redis.call('MSET', unpack(set, first, last)) end)
chunks(1, #deleted, function(first, last) redis.call('DEL', unpack(deleted, first, last)) end)

local at = texts_at + writes
local function take(count, command, key)
  chunks(at + 1, at + count, function(first, last) redis.call(command, key, unpack(ARGV, first, last)) end)
  at = at + count
end
take(2 * due, 'ZADD', KEYS[3])
take(undue, 'ZREM', KEYS[3])
for n = FIRST + records, FIRST + records + indexes - 1 do
  local added, removed = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  at = at + 2
  take(2 * added, 'ZADD', KEYS[n])
  take(removed, 'ZREM', KEYS[n])
end

local entry = '-'
if journals > 0 then entry = redis.call('XADD', KEYS[2], '*', 'bridge', ARGV[3], 'batch', ARGV[#ARGV]) end
if floor_to > floor then redis.call('HSET', KEYS[1], 'floor', ARGV[4]) end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1] .. ' ' .. entry)
if epoch < own_epoch then redis.call('HSET', KEYS[1], 'epoch', ARGV[11]) end
return {'committed', entry}
