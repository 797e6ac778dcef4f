-- What is used up in a window of time: `chat_api/windows.py` in Lua, to the last unit. Times are in milliseconds.
-- A window `w` has its `length` and `kept`, all that is stored of it. Integers are exact up to 2^53; no limit is beyond.

-- Fixed: begins with its first charge. The stamp is that time.
local fixed = { new = function() return { stamp = 0, count = 0, ends = 0 } end }
function fixed.look(w, now)
  local s = w.kept
  if now >= s.ends then s.count = 0 end
  if s.ends > now + 2 * w.length then s.ends = now + w.length end -- the clock went back, by more than a little
  return s.count
end
function fixed.charge(w, amount, now)
  local s = w.kept
  if s.count == 0 then
    if amount == 0 then return 0 end
    s.stamp, s.ends = now, now + w.length
  end
  s.count = s.count + amount
  return s.stamp
end
function fixed.correct(w, stamp, change, now)
  local s = w.kept
  if s.count > 0 and stamp == s.stamp then
    s.count = math.max(0, s.count + change)
  elseif change > 0 then
    fixed.charge(w, change, now)
  end
end
function fixed.reset(w, now)
  return w.kept.count > 0 and w.kept.ends - now or 0
end
function fixed.wait(w, amount, limit, now)
  return amount <= limit and w.kept.count > 0 and w.kept.ends - now or w.length
end
function fixed.touch() end

-- Elastic: the same, but begins anew, with what it has counted, at every call.
local elastic = setmetatable({}, { __index = fixed })
function elastic.touch(w, now) w.kept.ends = math.max(w.kept.ends, now + w.length) end

-- Moving: buckets of a sixtieth of the length, {number, count, number, count, ...}, the oldest first; `at` is the one
-- that is being filled. The stamp is a number.
local moving = { new = function() return {} end, touch = fixed.touch }
local function leaves(w, bucket) return math.ceil((bucket + 61) * w.length / 60) end
function moving.look(w, now)
  local s, buckets, total = w.kept, {}, 0
  local at, newest = math.floor(now * 60 / w.length), w.kept[#w.kept - 1] or 0
  local is_long_ago = newest - at > 60 -- the clock went back: all of it is as if charged now
  if not is_long_ago then at = math.max(at, newest) end
  for i = 1, #s, 2 do
    if is_long_ago or s[i] >= at - 60 then
      total = total + s[i + 1]
      buckets[#buckets + 1], buckets[#buckets + 2] = s[i], s[i + 1]
    end
  end
  if is_long_ago then buckets = { at, total } end
  w.kept, w.at, w.total = buckets, at, total
  return total
end
function moving.charge(w, amount)
  local s = w.kept
  if s[#s - 1] == w.at then
    s[#s] = s[#s] + amount
  elseif amount > 0 then
    s[#s + 1], s[#s + 2] = w.at, amount
  end
  w.total = w.total + amount
  return w.at
end
function moving.correct(w, stamp, change)
  local s = w.kept
  for i = 1, #s, 2 do
    if s[i] == stamp then
      s[i + 1] = s[i + 1] + change
      if s[i + 1] <= 0 then
        table.remove(s, i)
        table.remove(s, i)
      end
      return
    end
  end
  if change > 0 then moving.charge(w, change) end
end
function moving.reset(w, now)
  return #w.kept > 0 and leaves(w, w.kept[#w.kept - 1]) - now or 0
end
function moving.wait(w, amount, limit, now)
  local s, too_much = w.kept, w.total + amount - limit
  for i = 1, #s, 2 do
    too_much = too_much - s[i + 1]
    if too_much <= 0 then return leaves(w, s[i]) - now end
  end
  return w.length
end

-- Sliding: two windows after the clock, the previous weighted by how much of it is still within; `into` is how much of
-- the current one has passed. The stamp is a window's number.
local sliding = { new = function() return { at = 0, count = 0, previous = 0 } end, touch = fixed.touch }
function sliding.look(w, now)
  local s, at = w.kept, math.floor(now / w.length)
  w.into = now - at * w.length
  if at == s.at - 1 and (s.count > 0 or s.previous > 0) then -- the clock went back, over the edge
    at, w.into = s.at, 0
  elseif at > s.at then
    s.previous, s.count = at == s.at + 1 and s.count or 0, 0
  end
  s.at = at
  return s.count + math.floor(s.previous * (w.length - w.into) / w.length)
end
function sliding.charge(w, amount)
  w.kept.count = w.kept.count + amount
  return w.kept.at
end
function sliding.correct(w, stamp, change)
  local s = w.kept
  if stamp == s.at and s.count > 0 then
    s.count = math.max(0, s.count + change)
  elseif stamp == s.at - 1 and s.previous > 0 then
    s.previous = math.max(0, s.previous + change)
  elseif change > 0 then
    s.count = s.count + change
  end
end
function sliding.reset(w)
  if w.kept.count > 0 then return 2 * w.length - w.into end
  return w.kept.previous > 0 and w.length - w.into or 0
end
function sliding.wait(w, amount, limit)
  local s = w.kept
  local function light(previous, room)
    return w.length - math.ceil((room + 1) * w.length / previous) + 1
  end
  if amount > limit then return w.length end
  if s.count + amount <= limit then
    return math.max(1, light(s.previous, limit - amount - s.count) - w.into)
  end
  return w.length - w.into + light(s.count, limit - amount)
end

local kinds = {
  ['fixed-window'] = fixed,
  ['fixed-window-elastic-expiry'] = elastic,
  ['moving-window'] = moving,
  ['sliding-window-counter'] = sliding,
}

