-- Waits between requests, so that the load is what it is and not what the server can bear.
-- `wrk ... -- N` waits up to N ms on each connection, N / 2 on average.

function init(args)
   pause_ms_max = tonumber(args[1]) or 4
end

function delay()
   return math.random(0, pause_ms_max)
end
