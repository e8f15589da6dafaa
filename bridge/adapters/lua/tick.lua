-- Move the registry clock on by the time since the last tick; anything but 0..2,000 ms is a pause: the clock moves by
-- the 2,000 ms that readers may have run ahead, and what was renewed before it lies before "resumed_ms". A shorter
-- time is a pause where the caller says so.
--
-- KEYS  1 clock (hash: "clock_ms", "tick_ms" = Redis TIME of the last tick, epoch ms, "resumed_ms")
-- ARGV  1 "1" where something may have been lost since the last tick: a pause, however short
-- Returns the registry clock in ms.

local FIRST_MS, AHEAD_MS = 1000, 2000
local found = redis.call('HMGET', KEYS[1], 'clock_ms', 'tick_ms', 'resumed_ms')
local clock, last, resumed = tonumber(found[1] or '0'), tonumber(found[2] or ''), tonumber(found[3] or '0')
if not clock or not resumed then return redis.error_reply('ERR the registry clock is no number') end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local gap = last and now - last
if gap and gap >= 0 and gap <= AHEAD_MS then
  clock = clock + gap
  if ARGV[1] == '1' then resumed = clock end
elseif clock > 0 then
  clock = clock + AHEAD_MS
  resumed = clock
else
  clock = FIRST_MS
end
local function digits(number) return string.format('%.0f', number) end
redis.call('HSET', KEYS[1], 'clock_ms', digits(clock), 'tick_ms', digits(now), 'resumed_ms', digits(resumed))
return digits(clock)
