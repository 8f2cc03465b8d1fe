"""What must be so when all stories are told."""

import os

import pytest
from kubectl import await_condition


def test_the_operator_needed_no_other_rights(operator):
    forbidden = [line for line in operator.logs().splitlines() if "forbidden" in line.lower()]
    assert forbidden == []
    assert operator.lines("ERROR") == []
    assert "panicked" not in operator.logs()


@pytest.mark.skipif("MAINSTAY_TEST_KUBECONFIG" in os.environ, reason="the audit log of that cluster is elsewhere")
def test_the_rights_of_the_role_suffice_and_are_all_used(kubectl, operator):
    rules = kubectl.json("get", "clusterrole", "mainstay-system:mainstay")["rules"]
    granted = {(group, resource, verb) for rule in rules
               for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
    used, denied = set(), []
    for request in operator.requests():
        pod = request["user"].get("extra", {}).get("authentication.kubernetes.io/pod-name", [None])[0]
        if request["annotations"]["authorization.k8s.io/decision"] != "allow" and pod not in operator.narrowed:
            denied.append(f"{request['verb']} {request['requestURI']}")
        if target := request.get("objectRef"):
            kind = "/".join(filter(None, (target["resource"], target.get("subresource"))))
            used.add((target.get("apiGroup", ""), kind, request["verb"]))
            # What is not there yet needs the right to create it as well.
            if request["verb"] in ("patch", "update") and request["responseStatus"]["code"] == 201:
                used.add((target.get("apiGroup", ""), kind, "create"))
    assert denied == []
    assert granted - used == set()


def test_all_namespaces_went(kubectl):
    def left():
        return kubectl.items("namespaces", "--selector=mainstay.dev/made-by=e2e")
    await_condition("the namespaces of the stories to go", lambda: not left(), 90)
