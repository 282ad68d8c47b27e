-- Sends a pool of bodies in turn, no row twice: @@@@ in a body becomes the number of the turn.
-- Arguments: file of bodies (one a line), path, first turn.

local heads, tails = {}, {}
local count, index, turn, digits = 0, 0, 0, "0000"

function init(args)
  turn = tonumber(args[3])
  digits = string.format("%04d", turn % 10000)
  for body in io.lines(args[1]) do
    local head, tail = body:match("^(.-)@@@@(.*)$")
    count = count + 1
    heads[count] = table.concat({
      "POST ", args[2], " HTTP/1.1\r\nHost: ", wrk.host, ":", wrk.port,
      "\r\nContent-Type: application/json\r\nContent-Length: ", #body, "\r\n\r\n", head })
    tails[count] = tail
  end
end

function request()
  index = index + 1
  if index > count then
    index, turn = 1, turn + 1
    digits = string.format("%04d", turn % 10000)
  end
  return heads[index] .. digits .. tails[index]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
