"""What the library `spiffe` offers, used as its documentation shows, against the Workload API named by the
argument, whose certificates live for seconds. Prints a line for each step that worked.
"""

import sys
import threading

from spiffe import JwtSource, JwtSvid, WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import WorkloadApiError

LIMIT_S = 30
socket = "unix://" + sys.argv[1]


def step(name):
    print(name, "ok", flush=True)


def x509(client):
    context = client.fetch_x509_context()
    svid = context.default_svid
    assert svid.spiffe_id.path.endswith("/svc/web"), svid.spiffe_id
    assert len(svid.cert_chain) == 2, svid.cert_chain
    step("fetch_x509_context")
    bundles = client.fetch_x509_bundles()
    bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    assert len(bundle.x509_authorities) == 1
    step("fetch_x509_bundles")
    with X509Source(socket_path=socket) as source:
        seen = {source.get_x509_context().default_svid.leaf.serial_number}
        changed = threading.Condition()

        def wake():
            with changed:
                changed.notify_all()

        source.subscribe_for_updates(wake)
        with changed:
            while len(seen) < 3:
                assert changed.wait(LIMIT_S), "no rotation in time"
                seen.add(source.get_x509_context().default_svid.leaf.serial_number)
    step("x509_source_follows_rotations")


def jwt(client):
    svid = client.fetch_jwt_svid(audience={"api", "other"})
    assert svid.spiffe_id.path.endswith("/svc/web"), svid.spiffe_id
    step("fetch_jwt_svid")
    bundles = client.fetch_jwt_bundles()
    bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    checked = JwtSvid.parse_and_validate(svid.token, bundle, {"api"})
    assert checked.spiffe_id == svid.spiffe_id
    step("the_library_checks_the_token")
    assert client.validate_jwt_svid(svid.token, "api").spiffe_id == svid.spiffe_id
    step("validate_jwt_svid")
    try:
        client.validate_jwt_svid(svid.token, "web")
        raise AssertionError("a token for others was taken")
    except WorkloadApiError:
        step("a_token_for_others_is_refused")
    with JwtSource(socket_path=socket) as source:
        assert source.fetch_svid({"api"}).spiffe_id == svid.spiffe_id
        assert source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain) is not None
    step("jwt_source")


with WorkloadApiClient(socket) as client:
    x509(client)
    jwt(client)
