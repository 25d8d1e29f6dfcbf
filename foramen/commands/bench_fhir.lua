-- Requests of `foramen bench fhir` for wrk: MODE names the figure; the token and the ids lie in files.
local mode, folder = os.getenv("MODE"), os.getenv("FOLDER")
local patients = tonumber(os.getenv("PATIENTS"))
local organizations = math.max(1, math.floor(patients / 20))
local finding = os.getenv("FINDING")
local lag = 64 -- an id is read, changed and deleted this many ids after it was made, when that is long answered

local file = io.open(folder .. "/token")
local token = file:read("*a")
file:close()
local ids = {}
for line in io.lines(folder .. "/ids") do ids[#ids + 1] = line end

local json = "application/fhir+json"
wrk.headers["Authorization"] = "Bearer " .. token
wrk.headers["Accept"] = json
math.randomseed(tonumber(os.getenv("SEED")))

local function code() return string.format("F%02d", math.random(21)) end

local function observation(id)
  local head = id and ('"id":"' .. id .. '",') or ""
  local patient = math.random(0, patients - 1)
  return string.format('{"resourceType":"Observation",%s"status":"preliminary","category":[{"coding":[{"system":' ..
    '"http://terminology.hl7.org/CodeSystem/observation-category","code":"imaging"}]}],"code":{"coding":[{"system":' ..
    '"%s","code":"%s","display":"SYNTHETIC"}]},"subject":{"reference":"Patient/b%d"},"effectiveDateTime":' ..
    '"%d-%02d-%02dT10:00:00Z","valueQuantity":{"value":%.2f,"unit":"mm","system":"http://unitsofmeasure.org","code":"mm"}}',
    head, finding, code(), patient, math.random(2020, 2026), math.random(12), math.random(28), 1 + math.random() * 19)
end

local function send(method, path, body)
  wrk.headers["Content-Type"] = body and json or nil
  return wrk.format(method, path, nil, body)
end

local run, step = string.format("%x", math.random(0, 2 ^ 31 - 1)), 0
local function crud()
  -- The mix of the published comparison: create, read, update, search, delete, each id in this order.
  local kind, number = step % 5, math.floor(step / 5)
  step = step + 1
  local function name(n) return string.format("crud-%s-%d", run, n) end
  if kind == 0 or number < 4 * lag then
    if kind ~= 0 then number = -number * 5 - kind end
    return send("PUT", "/fhir/Observation/" .. name(number), observation(name(number)))
  end
  local target = name(number - kind * lag)
  if kind == 1 then return send("GET", "/fhir/Observation/" .. target) end
  if kind == 2 then return send("PUT", "/fhir/Observation/" .. target, observation(target)) end
  if kind == 3 then return send("GET", "/fhir/Observation?_id=" .. target) end
  return send("DELETE", "/fhir/Observation/" .. target)
end

local makers = {
  read = function() return send("GET", "/fhir/Observation/" .. ids[math.random(#ids)]) end,
  create = function() return send("POST", "/fhir/Observation", observation()) end,
  crud = crud,
  patient_code_date = function()
    return send("GET", "/fhir/Observation?patient=b" .. math.random(0, patients - 1) .. "&code=" .. finding .. "|" ..
      code() .. "&date=ge2023")
  end,
  newest = function() return send("GET", "/fhir/Observation?code=" .. code() .. "&_sort=-date&_count=50") end,
  chained = function()
    return send("GET", "/fhir/Observation?patient.organization.identifier=urn:bench%7C" ..
      math.random(0, organizations - 1) .. "&code=" .. code() .. "&_count=20")
  end,
}
request = makers[mode]

local failed = 0
function response(status)
  if status >= 400 then failed = failed + 1 end
end

function done(summary, latency)
  io.write(string.format("\nRESULT %d %d %d %.0f %.0f\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
