-- Sends 16 requests at once on each connection (or as many as `wrk ... -- N` says).

function init(args)
   local depth = tonumber(args[1]) or 16
   requests = string.rep(wrk.format(), depth)
end

function request()
   return requests
end
