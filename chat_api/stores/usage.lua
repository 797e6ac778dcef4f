-- Counts usage on top of what is kept of a day. KEYS: the day's hash. ARGV, in MessagePack: the process, the number of
-- this message of its, how long the day is kept in s, and {field, amount, field, amount, ...}. A message that has been
-- counted already is not counted again: its answer may have got lost.
local process, number, keep, rows = unpack(cmsgpack.unpack(ARGV[1]))
local counted = '#' .. process
if tonumber(redis.call('HGET', KEYS[1], counted) or 0) < number then
  for i = 1, #rows, 2 do redis.call('HINCRBY', KEYS[1], rows[i], string.format('%.0f', rows[i + 1])) end
  redis.call('HSET', KEYS[1], counted, string.format('%.0f', number))
  redis.call('EXPIRE', KEYS[1], keep)
end
return 1
