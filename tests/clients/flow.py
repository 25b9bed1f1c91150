"""What programs do with Consul through py-consul or python-consul, as their documentation shows it.

    flow.py HOST PORT APPLICATION_PORT

Prints a line for each step: its name and `ok`, or what went wrong. Nothing here knows of Weft.
"""

import base64
import sys
import threading
import time

import consul

HOST, PORT, APPLICATION = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = consul.Consul(host=HOST, port=PORT)
DEADLINE_S = 10


def eventually(what, condition):
    """Waits until a condition holds: checks run beside what is asked."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def check_of(check_id):
    return client.agent.checks()[check_id]


def registration():
    http = consul.Check.http(f"http://127.0.0.1:{APPLICATION}/health", "1s")
    assert client.agent.service.register(
        "pysvc", service_id="py1", address="10.0.0.5", port=80, tags=["a", "b"], check=http
    )
    assert client.agent.service.register("pysvc2", check=consul.Check.ttl("10m"))
    services = client.agent.services()
    assert services["py1"]["Service"] == "pysvc" and services["py1"]["Port"] == 80, services
    assert services["py1"]["Tags"] == ["a", "b"] and services["py1"]["Address"] == "10.0.0.5", services
    assert services["pysvc2"]["Tags"] == [], services


def agent():
    assert client.agent.self()["Config"]["NodeName"] == "n1"
    members = client.agent.members()
    assert [member["Name"] for member in members] == ["n1"], members


def status():
    leader = client.status.leader()
    assert leader and client.status.peers() == [leader], leader


def ttl_updates():
    assert check_of("service:pysvc2")["Status"] == "critical"
    for update, expected in [
        (client.agent.check.ttl_pass, "passing"),
        (client.agent.check.ttl_warn, "warning"),
        (client.agent.check.ttl_fail, "critical"),
        (client.agent.check.ttl_pass, "passing"),
    ]:
        assert update("service:pysvc2", "note of " + expected)
        check = check_of("service:pysvc2")
        assert (check["Status"], check["Output"]) == (expected, "note of " + expected), check


def own_checks():
    assert client.agent.check.register("memory", check=consul.Check.ttl("10m"), notes="in MiB")
    assert client.agent.check.ttl_pass("memory", "42")
    assert check_of("memory")["Output"] == "42" and check_of("memory")["Notes"] == "in MiB"
    assert client.agent.check.deregister("memory")
    assert "memory" not in client.agent.checks()


def health():
    eventually("the HTTP check passes", lambda: len(client.health.service("pysvc", passing=True)[1]) == 1)
    index, entries = client.health.service("pysvc", passing=True, tag="b")
    assert int(index) > 0
    entry = entries[0]
    assert entry["Node"]["Node"] == "n1" and entry["Service"]["ID"] == "py1", entry
    assert [check["CheckID"] for check in entry["Checks"]] == ["serfHealth", "service:py1"], entry
    assert client.health.service("pysvc", tag="nope")[1] == []
    assert client.health.service("nobody")[1] == []
    assert [check["Status"] for check in client.health.checks("pysvc")[1]] == ["passing"]
    assert "service:py1" in [check["CheckID"] for check in client.health.state("any")[1]]
    assert "serfHealth" in [check["CheckID"] for check in client.health.node("n1")[1]]


def blocking():
    index, nobody = client.health.service("pylate", passing=True)
    assert nobody == []
    timer = threading.Timer(0.2, lambda: client.agent.service.register("pylate", port=1))
    timer.start()
    began = time.monotonic()
    woken, entries = client.health.service("pylate", index=index, wait="60s", passing=True)
    timer.join()
    assert time.monotonic() - began < DEADLINE_S, "it was not woken"
    assert int(woken) > int(index) and len(entries) == 1, entries
    began = time.monotonic()
    again, _ = client.health.service("pylate", index=woken, wait="1s")
    assert again == woken and time.monotonic() - began >= 1


def catalog():
    assert client.catalog.datacenters() == ["dc1"]
    assert sorted(client.catalog.services()[1]["pysvc"]) == ["a", "b"]
    instance = client.catalog.service("pysvc", tag="a")[1][0]
    assert (instance["ServiceAddress"], instance["ServicePort"]) == ("10.0.0.5", 80), instance
    assert [node["Node"] for node in client.catalog.nodes()[1]] == ["n1"]
    assert "py1" in client.catalog.node("n1")[1]["Services"]
    assert client.catalog.node("nobody")[1] is None


def external_nodes():
    assert client.catalog.register("ext", "10.0.0.9", service={"service": "mail", "port": 25})
    instance = client.catalog.service("mail")[1][0]
    assert (instance["Node"], instance["Address"], instance["ServicePort"]) == ("ext", "10.0.0.9", 25)
    assert client.catalog.deregister("ext")
    assert client.catalog.service("mail")[1] == []


def kv():
    assert client.kv.put("app/a", "1") and client.kv.put("app/b", "two")
    index, value = client.kv.get("app/a")
    assert value["Value"] == b"1" and value["Flags"] == 0 and int(index) > 0, value
    assert client.kv.get("app/none")[1] is None
    assert [entry["Key"] for entry in client.kv.get("app/", recurse=True)[1]] == ["app/a", "app/b"]
    assert client.kv.get("app/", keys=True)[1] == ["app/a", "app/b"]
    assert client.kv.put("app/a", "3", cas=value["ModifyIndex"])
    assert not client.kv.put("app/a", "4", cas=value["ModifyIndex"])
    assert client.kv.put("app/a", "5", flags=7) and client.kv.get("app/a")[1]["Flags"] == 7
    assert client.kv.delete("app/", recurse=True)
    assert client.kv.get("app/a")[1] is None


def sessions():
    session = client.session.create("holder", ttl=30, lock_delay=0)
    assert session in [known["ID"] for known in client.session.list()[1]]
    assert client.session.info(session)[1]["Name"] == "holder"
    assert client.kv.put("lock", "me", acquire=session)
    other = client.session.create("rival", ttl=30)
    assert not client.kv.put("lock", "you", acquire=other)
    assert client.kv.get("lock")[1]["Session"] == session
    assert client.session.renew(session)["TTL"] == "30s"
    assert client.kv.put("lock", "done", release=session)
    assert "Session" not in client.kv.get("lock")[1]
    assert client.session.destroy(session) and client.session.destroy(other)
    assert client.kv.delete("lock")


def transactions():
    value = base64.b64encode(b"hi").decode()
    answer = client.txn.put([{"KV": {"Verb": "set", "Key": "t", "Value": value}}, {"KV": {"Verb": "get", "Key": "t"}}])
    assert answer["Results"][1]["KV"]["Value"] == value and not answer["Errors"], answer
    assert client.kv.delete("t")


def maintenance():
    passing = lambda: len(client.health.service("pysvc", passing=True)[1])
    assert client.agent.service.maintenance("py1", "true", "replacing the disk") and passing() == 0
    assert check_of("_service_maintenance:py1")["Notes"] == "replacing the disk"
    assert client.agent.service.maintenance("py1", "false") and passing() == 1
    assert client.agent.maintenance("true", "moving") and passing() == 0
    assert client.agent.maintenance("false") and passing() == 1


def deregistration():
    for service in ["py1", "pysvc2", "pylate"]:
        assert client.agent.service.deregister(service)
    assert client.agent.services() == {}
    assert client.health.service("pysvc")[1] == []


for step in [
    registration, agent, status, ttl_updates, own_checks, health, blocking, catalog, external_nodes, kv, sessions,
    transactions, maintenance, deregistration,
]:
    try:
        step()
        print(step.__name__, "ok")
    except Exception as fault:  # whatever the library raises is what a program would see
        print(step.__name__, type(fault).__name__, " ".join(str(fault).split())[:300])
