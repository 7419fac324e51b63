-- Sends the requests of the file named by BENCH_REQUESTS_FILE, and prints the figures as one line of JSON.
-- A request in the file follows a line with its length. It is read here because a secret has no place in a command line.

local file = assert(io.open(os.getenv("BENCH_REQUESTS_FILE"), "rb"))
local requests, turn = {}, 0
for length in function() return file:read("*n") end do
  file:read(1)
  requests[#requests + 1] = file:read(length)
end
file:close()

-- Without a global `request` function wrk asks for the request once and repeats its bytes from C.
wrk.format = function() return requests[1] end

if #requests > 1 then
  request = function()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failures": %d, "p50_us": %.1f, "p99_us": %.1f, "p999_us": %.1f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
