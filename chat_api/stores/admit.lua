-- Charges a subject's counters and takes a place among its calls in flight, if all of that is within its limits.
--
-- KEYS: the subject. ARGV, in MessagePack: the time or 0; the process, its link, the lease of its places in ms, the
-- calls that it has in flight; how many there may be of all (0: any number); the counters, each with its name,
-- strategy, length in ms, limit and amount. Returns, in MessagePack: which counter refuses (from 1 on; 0: none, -1: the
-- calls in flight) and for how many ms; then of each counter what is left, when all of it is there again, the stamp.
local time, process, link, lease, own, most, counters = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_ms(time)
local windows, calls = load(KEYS[1], counters, now, lease)

local refused, wait = 0, 0
for i, w in ipairs(windows) do
  local limit, amount = counters[i][4], math.max(counters[i][5], 1)
  w.kind.touch(w, now)
  if w.used + amount > limit then
    local longer = w.kind.wait(w, amount, limit, now)
    if longer > wait then refused, wait = i, longer end
  end
end

if most > 0 then
  local others, mine = 0, calls.by[process]
  for name, held in pairs(calls.by) do
    if name ~= process then others = others + held[2] end
  end
  -- What was counted over another link may be wrong: answers got lost with it. The process knows better.
  if mine and mine[1] == link then own = mine[2] end
  if refused == 0 and own + others >= most then refused = -1 end
  if refused == 0 and not (mine and mine[1] > link) then calls.by[process] = { link, own + 1, now + lease } end
end

local reply = { refused, wait }
for i, w in ipairs(windows) do
  local limit, amount, stamp = counters[i][4], counters[i][5], 0
  if refused == 0 then
    stamp = w.kind.charge(w, amount, now)
    w.used = w.used + amount
  end
  for _, value in ipairs({ math.max(0, limit - w.used), w.kind.reset(w, now), stamp }) do reply[#reply + 1] = value end
end
save(KEYS[1], windows, calls, now)
return cmsgpack.pack(reply)
