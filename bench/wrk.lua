-- Sends the bytes of the file named by BENCH_HEAD_FILE, and prints the figures as one line of JSON.
-- The file is read here because a secret has no place in a command line.

local file = assert(io.open(os.getenv("BENCH_HEAD_FILE"), "rb"))
local head = file:read("*a")
file:close()

-- Without a global `request` function wrk asks for the request once and repeats its bytes from C.
wrk.format = function() return head end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failures": %d, "p50_us": %.1f, "p99_us": %.1f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
