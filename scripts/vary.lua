-- Sends requests that differ: no head repeats the one before, as from many clients.
-- `wrk ... -- N` sends N at once on each connection (1).

local count = 0

function init(args)
   depth = tonumber(args[1]) or 1
end

function request()
   local batch = {}
   for i = 1, depth do
      count = count + 1
      batch[i] = wrk.format("GET", "/plaintext?n=" .. count)
   end
   return table.concat(batch)
end
