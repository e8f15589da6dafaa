-- Tell whether an organization's changes may be made now: every version and every key's type, before the first write.
-- It writes nothing; whoever asks has watched KEYS[1] and the keys of a type, makes the changes in one transaction, and
-- every transaction changes KEYS[1], so that what is said here still holds when they are made.
--
-- Only names and versions pass through here, no record: this Lua reads every byte of every string that it is given.
--
-- KEYS  1 bridges (hash: "floor", "epoch" of the lease, "token:<bridge>" = "<token> <what its commit was answered>")
--       then the records to write or to check, the keys that must hold a type or nothing
-- ARGV  1 this bridge's token field   2 token   3 this bridge's epoch
--       4 what is expected of each record, after one another: "=<version>" it has that version, "+<version>" it is absent
--         and may be created with that version, "-" it is absent
--       then the type of each key of a type
-- Returns {"free", the organization's floor}, {"committed", what it was answered} for a token asked again, {"conflict", number of the key in
--       KEYS} where a record changed or a created one is not above the floor, {"corrupt", number} where a key holds the
--       wrong type or no record, {"fenced", 0} where a bridge of a higher epoch has taken over.

local known = redis.pcall('HMGET', KEYS[1], 'floor', ARGV[1], 'epoch')
if known.err then return {'corrupt', 1} end
local epoch = tonumber(known[3] or '0')
if not epoch then return {'corrupt', 1} end
if epoch > tonumber(ARGV[3]) then return {'fenced', 0} end
if known[2] then
  local token, answer = string.match(known[2], '^(.*) (%S+)$')
  if token == ARGV[2] then return {'committed', answer} end
end
local floor = tonumber(known[1] or '0')
if not floor then return {'corrupt', 1} end

local function is_type(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end

local at = 1
for word, version in string.gmatch(ARGV[4], '([=+-])(%d*)') do
  at = at + 1
  local key, expected = KEYS[at], word == '=' and version .. ':' or ''
  -- As much of the record as tells its version, or whether there is any.
  local start = redis.pcall('GETRANGE', key, 0, math.max(#expected - 1, 0))
  if start ~= expected then
    if type(start) == 'table' then return {'corrupt', at} end
    local text = redis.call('GETRANGE', key, 0, 63)
    if text ~= '' then return {string.find(text, '^%d+:%d+:') and 'conflict' or 'corrupt', at} end
    return {is_type(key, 'none') and 'conflict' or 'corrupt', at}
  end
  if word ~= '=' and not is_type(key, 'none') then return {'corrupt', at} end
  if word == '+' and tonumber(version) <= floor then return {'conflict', at} end
end
for n = 1, #KEYS - at do
  if not is_type(KEYS[at + n], ARGV[4 + n]) then return {'corrupt', at + n} end
end
return {'free', floor}
