-- Sends the bytes of the file named by BENCH_HEAD_FILE, and prints the figures as one line of JSON.
-- The file is read here because a secret has no place in a command line.

local file = assert(io.open(os.getenv("BENCH_HEAD_FILE"), "rb"))
local head = file:read("*a")
file:close()

-- Without a global `request` function wrk asks for the request once and repeats its bytes from C.
wrk.format = function() return head end

-- With BENCH_VARY every request of a connection differs from the one before it, in its path and in one header.
if os.getenv("BENCH_VARY") then
  local heads, turn = {}, 0
  for number = 1, 500 do
    local varied = head:gsub("/orders/1729", string.format("/orders/%d", 1000 + number), 1)
    heads[number] = varied:gsub("00%-4bf92f3577b34da6", string.format("00-4bf92f3577b3%04x", number), 1)
  end
  request = function()
    turn = turn % #heads + 1
    return heads[turn]
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failures": %d, "p50_us": %.1f, "p99_us": %.1f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
