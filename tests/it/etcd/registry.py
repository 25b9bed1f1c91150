"""The registry pattern with aetcd: registration under a lease, discovery with a watch, transactions,
locks. Arguments: host and port of the etcd listener, address of the HTTP API."""

import asyncio
import json
import sys
import time
import urllib.request

import aetcd

HOST, PORT, HTTP = sys.argv[1], int(sys.argv[2]), sys.argv[3]
PREFIX = b"/services/user-service/"
VALUE = json.dumps({"address": "10.0.0.1:8080", "port": 8080}).encode()


def instances():
    with urllib.request.urlopen(f"http://{HTTP}/v1/health/service/user-service?passing") as answer:
        found = json.load(answer)
    return [(e["Service"]["ID"], e["Service"]["Address"], e["Service"]["Port"]) for e in found]


async def until(what, holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.02)


async def main():
    async with aetcd.Client(host=HOST, port=PORT) as client:
        status = await client.status()
        assert status.version.startswith("3."), status.version

        lease = await client.lease(30)
        await client.put(PREFIX + b"1", VALUE, lease=lease)
        await until("the instance", lambda: instances() == [("1", "10.0.0.1", 8080)])
        assert (await lease.refresh()).TTL == 30
        assert list(await lease.keys()) == [PREFIX + b"1"]
        print("registered")

        heard = []
        watch = await client.watch_prefix(PREFIX)

        async def listen():
            async for event in watch:
                heard.append((event.kind, event.kv.key))
                if len(heard) == 2:
                    return

        listening = asyncio.create_task(listen())
        await client.put(PREFIX + b"2", VALUE)
        assert len(await client.get_prefix(PREFIX)) == 2
        await lease.revoke()
        await asyncio.wait_for(listening, 10)
        assert heard == [("PUT", PREFIX + b"2"), ("DELETE", PREFIX + b"1")], heard
        await until("its end", lambda: instances() == [("2", "10.0.0.1", 8080)])
        print("watched")

        created, _ = await client.transaction(
            compare=[client.transactions.version(b"once") == 0],
            success=[client.transactions.put(b"once", b"first")],
            failure=[client.transactions.get(b"once")],
        )
        again, answers = await client.transaction(
            compare=[client.transactions.version(b"once") == 0],
            success=[client.transactions.put(b"once", b"second")],
            failure=[client.transactions.get(b"once")],
        )
        assert (created, again) == (True, False), (created, again)
        assert (await client.get(b"once")).value == b"first"

        async with client.lock(b"job", ttl=5) as lock:
            assert await lock.is_acquired()
        assert await client.delete_prefix(PREFIX)
        await until("the end of all", lambda: instances() == [])
    print("all done")


asyncio.run(main())
