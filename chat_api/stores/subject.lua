-- What is stored of a subject: one hash, so that all of it is in one slot. A field for each counter, and `calls`: of
-- each process its {link, calls in flight, when the lease of their places ends}.

-- The time: given by tests, else Redis's own.
local function now_ms(given)
  if given > 0 then return given end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The windows of the counters, {name, strategy, length, ...}, and the calls in flight of those whose lease goes on.
local function load(key, counters, now, lease)
  local windows, fields = {}, {}
  for i, c in ipairs(counters) do
    windows[i] = { kind = kinds[c[2]], length = c[3], field = c[1] .. ' ' .. c[2] .. ' ' .. c[3] }
    fields[i] = windows[i].field
  end
  fields[#fields + 1] = 'calls'
  local stored = redis.call('HMGET', key, unpack(fields))
  for i, w in ipairs(windows) do
    w.packed = stored[i]
    w.kept = w.packed and cmsgpack.unpack(w.packed) or w.kind.new()
    w.used = w.kind.look(w, now)
  end
  local calls = { packed = stored[#fields] }
  calls.by = calls.packed and cmsgpack.unpack(calls.packed) or {}
  for process, held in pairs(calls.by) do
    held[3] = math.min(held[3], now + lease) -- less only if the clock went back
    if held[3] <= now then calls.by[process] = nil end
  end
  return windows, calls
end

-- Stores what has changed; what counts nothing any more is removed, and all of it goes when the last has run out.
local function save(key, windows, calls, now)
  local longest = 0
  local function keep(field, before, kept, ms)
    longest = math.max(longest, ms)
    local packed = ms > 0 and cmsgpack.pack(kept)
    if packed and packed ~= before then
      redis.call('HSET', key, field, packed)
    elseif before and not packed then
      redis.call('HDEL', key, field)
    end
  end
  for _, w in ipairs(windows) do keep(w.field, w.packed, w.kept, w.kind.reset(w, now)) end
  local lease_ms = 0
  for _, held in pairs(calls.by) do lease_ms = math.max(lease_ms, held[3] - now) end
  keep('calls', calls.packed, calls.by, lease_ms)
  if longest > 0 and longest > redis.call('PTTL', key) then redis.call('PEXPIRE', key, longest) end
end
