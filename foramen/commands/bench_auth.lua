-- Code-flow sign-ins of `foramen bench auth` for wrk: authorize with a session, take the code, exchange it for tokens.
local folder = os.getenv("FOLDER")
local cookies = {}
for line in io.lines(folder .. "/cookies") do cookies[#cookies + 1] = line end
local function read(name)
  local file = io.open(folder .. "/" .. name)
  local text = file:read("*a")
  file:close()
  return text
end
local query, exchange = read("query"), read("exchange")
local form = { ["Content-Type"] = "application/x-www-form-urlencoded" }
local codes, turn = {}, 0
tokens, failed = 0, 0

function request()
  local code = table.remove(codes)
  if code then return wrk.format("POST", "/auth/token", form, exchange .. "&code=" .. code) end
  turn = turn % #cookies + 1
  return wrk.format("GET", "/auth/authorize?" .. query, { Cookie = cookies[turn] })
end

function response(status, headers, body)
  local location = headers["location"] or headers["Location"]
  local code = status == 303 and location and location:match("[?&]code=([^&]+)")
  if code then
    codes[#codes + 1] = code
  elseif status == 200 and body:find('"access_token"', 1, true) then
    tokens = tokens + 1
  else
    failed = failed + 1
  end
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

function done(summary, latency, requests)
  local made, lost = 0, 0
  for _, thread in ipairs(threads) do
    made, lost = made + thread:get("tokens"), lost + thread:get("failed")
  end
  io.write(string.format("RESULT %d %d %d %d\n", made, summary.duration, lost, latency:percentile(99)))
end
