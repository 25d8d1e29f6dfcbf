// An app as its makers would write it with `fhirclient` (npm) for Node: /launch sends the browser to the server,
// /callback finishes the code flow, reads with the token, refreshes it, and answers what it found as JSON.
const http = require("http");
const [modules, port, clientId, scope] = process.argv.slice(2);
const smart = require(require.resolve("fhirclient", { paths: [modules] }));

const kept = new Map();
const storage = {
  get: async (key) => kept.get(key),
  set: async (key, value) => (kept.set(key, value), value),
  unset: async (key) => kept.delete(key),
};

async function status(promise) {
  try {
    await promise;
    return 200;
  } catch (error) {
    return error.statusCode || error.status || String(error);
  }
}

async function read(client) {
  const patient = await client.patient.read();
  const before = client.state.tokenResponse.access_token;
  const bundle = await client.request(`Observation?patient=${client.patient.id}`);
  const found = {
    patient: patient.name[0].text,
    user: client.getFhirUser(),
    scope: client.getState("tokenResponse.scope"),
    observations: (bundle.entry || []).map((entry) => entry.resource.id),
    other: await status(client.request("Patient/p2")),
  };
  await client.refresh();
  found.renewed = before !== client.state.tokenResponse.access_token;
  found.again = (await client.patient.read()).id;
  return found;
}

const server = http.createServer(async (request, response) => {
  const api = smart(request, response, storage);
  try {
    if (request.url.startsWith("/launch")) {
      await api.authorize({ clientId, scope, redirectUri: "/callback", pkceMode: "required" });
    } else {
      const found = await read(await api.ready());
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(found));
    }
  } catch (error) {
    response.writeHead(500);
    response.end(String(error.stack || error));
  }
});
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
