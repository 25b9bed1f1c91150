// What programs do with Consul through the npm package "consul", as its documentation shows it.
//
//     node flow.js HOST PORT APPLICATION_PORT
//
// Prints a line for each step: its name and `ok`, or what went wrong. Nothing here knows of Weft.

"use strict";

const assert = require("assert");
const Consul = require("consul");

const [host, port, application] = process.argv.slice(2);
const consul = new Consul({ host, port: Number(port) });
const DEADLINE_MS = 10000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function eventually(what, condition) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    assert(Date.now() < end, what);
    await pause(50);
  }
}

async function checkOf(id) {
  return (await consul.agent.checks())[id];
}

const steps = {
  async registration() {
    await consul.agent.service.register({
      name: "jssvc",
      id: "js1",
      tags: ["x"],
      address: "10.0.0.6",
      port: 80,
      check: { http: `http://127.0.0.1:${application}/health`, interval: "1s" },
    });
    await consul.agent.service.register({ name: "jsttl", check: { ttl: "10m" } });
    const services = await consul.agent.services();
    assert.strictEqual(services.js1.Service, "jssvc");
    assert.deepStrictEqual([services.js1.Address, services.js1.Port, services.js1.Tags], ["10.0.0.6", 80, ["x"]]);
  },

  async agent() {
    assert.strictEqual((await consul.agent.self()).Config.NodeName, "n1");
    assert.deepStrictEqual((await consul.agent.members()).map((member) => member.Name), ["n1"]);
  },

  async status() {
    const leader = await consul.status.leader();
    assert.deepStrictEqual(await consul.status.peers(), [leader]);
  },

  async ttl_updates() {
    for (const [verb, status] of [["pass", "passing"], ["warn", "warning"], ["fail", "critical"], ["pass", "passing"]]) {
      await consul.agent.check[verb]({ id: "service:jsttl", note: `note of ${status}` });
      const check = await checkOf("service:jsttl");
      assert.deepStrictEqual([check.Status, check.Output], [status, `note of ${status}`]);
    }
  },

  async own_checks() {
    await consul.agent.check.register({ name: "memory", ttl: "10m", notes: "in MiB" });
    await consul.agent.check.pass("memory");
    assert.strictEqual((await checkOf("memory")).Status, "passing");
    await consul.agent.check.deregister("memory");
    assert.strictEqual(await checkOf("memory"), undefined);
  },

  async health() {
    const passing = () => consul.health.service({ service: "jssvc", passing: true });
    await eventually("the HTTP check passes", async () => (await passing()).length === 1);
    const [entry] = await passing();
    assert.deepStrictEqual(entry.Checks.map((check) => check.CheckID), ["serfHealth", "service:js1"]);
    assert.deepStrictEqual(await consul.health.service({ service: "jssvc", tag: "nope" }), []);
    assert.deepStrictEqual((await consul.health.checks("jssvc")).map((check) => check.Status), ["passing"]);
    assert((await consul.health.state("any")).some((check) => check.CheckID === "service:js1"));
    assert((await consul.health.node("n1")).some((check) => check.CheckID === "serfHealth"));
  },

  async blocking() {
    const watch = consul.watch({
      method: consul.health.service,
      options: { service: "jslate", passing: true },
      backoffFactor: 1000,
    });
    try {
      const woken = new Promise((resolve, reject) => {
        watch.on("change", (entries) => entries.length > 0 && resolve(entries));
        watch.on("error", reject);
        setTimeout(() => reject(new Error("it was not woken")), DEADLINE_MS).unref();
      });
      await pause(200);
      await consul.agent.service.register({ name: "jslate", port: 1 });
      assert.strictEqual((await woken)[0].Service.Service, "jslate");
    } finally {
      watch.end();
    }
  },

  async catalog() {
    assert.deepStrictEqual(await consul.catalog.datacenters(), ["dc1"]);
    assert.deepStrictEqual((await consul.catalog.services()).jssvc, ["x"]);
    const [instance] = await consul.catalog.service.nodes("jssvc");
    assert.deepStrictEqual([instance.ServiceAddress, instance.ServicePort], ["10.0.0.6", 80]);
    assert.deepStrictEqual((await consul.catalog.nodes()).map((node) => node.Node), ["n1"]);
    assert((await consul.catalog.node.services("n1")).Services.js1);
    assert.deepStrictEqual(await consul.catalog.connect.nodes("jssvc"), []);
  },

  async sidecar() {
    await consul.agent.service.register({ name: "jsmesh", port: 1, connect: { sidecar_service: {} } });
    const [sidecar] = await consul.catalog.connect.nodes("jsmesh");
    assert.deepStrictEqual([sidecar.ServiceKind, sidecar.ServiceName], ["connect-proxy", "jsmesh-sidecar-proxy"]);
  },

  async kv() {
    assert.strictEqual(await consul.kv.set("app/a", "1"), true);
    assert.strictEqual(await consul.kv.set("app/b", "two"), true);
    const value = await consul.kv.get("app/a");
    assert.deepStrictEqual([value.Key, value.Value], ["app/a", "1"]);
    assert.strictEqual(await consul.kv.get("app/none"), undefined);
    assert.deepStrictEqual(await consul.kv.keys("app/"), ["app/a", "app/b"]);
    assert.deepStrictEqual((await consul.kv.get({ key: "app/", recurse: true })).map((e) => e.Value), ["1", "two"]);
    assert.strictEqual(await consul.kv.set({ key: "app/a", value: "3", cas: String(value.ModifyIndex) }), true);
    // The library gives nothing back for `false`.
    assert(!(await consul.kv.set({ key: "app/a", value: "4", cas: String(value.ModifyIndex) })));
    await consul.kv.del({ key: "app/", recurse: true });
    assert.strictEqual(await consul.kv.get("app/a"), undefined);
  },

  async sessions() {
    const { ID: session } = await consul.session.create({ name: "holder", ttl: "30s", lockdelay: "1s" });
    assert((await consul.session.list()).some((known) => known.ID === session));
    assert.strictEqual(await consul.kv.set({ key: "lock", value: "me", acquire: session }), true);
    assert.strictEqual((await consul.kv.get("lock")).Session, session);
    assert.strictEqual((await consul.session.renew(session))[0].TTL, "30s");
    assert.strictEqual(await consul.kv.set({ key: "lock", value: "done", release: session }), true);
    await consul.session.destroy(session);
    await consul.kv.del("lock");
  },

  async transactions() {
    const answer = await consul.transaction.create([{ KV: { Verb: "set", Key: "t", Value: "aGk=" } }]);
    assert.strictEqual(answer.Results[0].KV.Key, "t");
    await consul.kv.del("t");
  },

  async maintenance() {
    const passing = async () => (await consul.health.service({ service: "jssvc", passing: true })).length;
    await consul.agent.service.maintenance({ id: "js1", enable: true, reason: "replacing the disk" });
    assert.strictEqual(await passing(), 0);
    assert.strictEqual((await checkOf("_service_maintenance:js1")).Notes, "replacing the disk");
    await consul.agent.service.maintenance({ id: "js1", enable: false });
    assert.strictEqual(await passing(), 1);
    await consul.agent.maintenance({ enable: true, reason: "moving" });
    assert.strictEqual(await passing(), 0);
    await consul.agent.maintenance(false);
    assert.strictEqual(await passing(), 1);
  },

  async deregistration() {
    for (const id of ["js1", "jsttl", "jslate", "jsmesh"]) {
      await consul.agent.service.deregister(id);
    }
    assert.deepStrictEqual(await consul.agent.services(), {});
    assert.deepStrictEqual(await consul.health.service("jssvc"), []);
  },
};

(async () => {
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
      console.log(`${name} ok`);
    } catch (fault) {
      console.log(`${name} ${fault.name} ${String(fault.message).split(/\s+/).join(" ").slice(0, 300)}`);
    }
  }
})();
