-- Corrects what a subject was charged, and gives places back; or renews the lease of a process's places.
--
-- KEYS: the subject. ARGV, in MessagePack: the time or 0; the process, its link, the lease of its places in ms, the
-- calls that it has in flight; how many of its places are given back (-1: as many as are too many); the counters, each
-- with its name, strategy, length in ms, stamp and change.
local time, process, link, lease, own, given_back, counters = unpack(cmsgpack.unpack(ARGV[1]))
local now = now_ms(time)
local windows, calls = load(KEYS[1], counters, now, lease)

for i, w in ipairs(windows) do w.kind.correct(w, counters[i][4], counters[i][5], now) end

local mine = calls.by[process]
if not (mine and mine[1] > link) then
  if mine and mine[1] == link and given_back >= 0 then own = mine[2] - given_back end
  calls.by[process] = own > 0 and { link, own, now + lease } or nil
end
save(KEYS[1], windows, calls, now)
return 1
