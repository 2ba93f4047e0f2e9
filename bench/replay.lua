-- Sends requests that were signed into a file before, each once, in the file's order: five digits, then so many bytes.
-- Without a file wrk sends its own request again and again. At the end it reports as one line of JSON.

function init(args)
  if not args[1] then return end
  local file, last = assert(io.open(args[1], "rb"))
  file:setvbuf("full", 1048576)
  function request()
    local length = file:read(5)
    -- Past the end the last request comes again: a transfer is refused then, and the run is seen to have failed.
    if length then last = file:read(tonumber(length)) end
    return last
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'REPORT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,' ..
    '"refused":%d,"broken":%d,"timeouts":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
