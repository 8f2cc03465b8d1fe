"""What `helm template` makes of charts/mainstay, value by value.

Needs Helm: `.cache/bin/helm`, or the one that the environment variable HELM names. `UPDATE_EXPECT=1` rewrites the snapshot.
"""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "mainstay"
SNAPSHOT = Path(__file__).with_name("default.yaml")
HELM = os.environ.get("HELM", str(ROOT / ".cache" / "bin" / "helm"))


def helm_template(*arguments):
    return subprocess.run(
        [HELM, "template", "mainstay", str(CHART), "--namespace", "mainstay-system", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def render(*settings):
    """The objects of the chart with each of `settings` as a `--set`."""
    result = helm_template(*(part for setting in settings for part in ("--set", setting)))
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def refusal(*settings):
    result = helm_template(*(part for setting in settings for part in ("--set", setting)))
    assert result.returncode != 0, f"{settings} was accepted"
    return result.stderr


def only(objects, kind):
    found = [one for one in objects if one["kind"] == kind]
    assert len(found) == 1, [one["metadata"]["name"] for one in found]
    return found[0]


def container(objects):
    return only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def kinds(objects):
    return {one["kind"] for one in objects}


def test_default_rendering_is_the_snapshot():
    rendered = helm_template("--set", "crds.enabled=false")
    assert rendered.returncode == 0, rendered.stderr
    if os.environ.get("UPDATE_EXPECT"):
        SNAPSHOT.write_text(rendered.stdout)
    assert rendered.stdout == SNAPSHOT.read_text(), "run `UPDATE_EXPECT=1 make chart-test` and review the difference"


def test_rendering_twice_gives_the_same_bytes():
    assert helm_template().stdout == helm_template().stdout


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("image.tga=dev", "tga"),
        ("watch.namespace=analytics", "namespace"),
        ("replicas=1", "replicas"),
        ("replicaCount=-1", "replicaCount"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=4bf9", "digest"),
        ("logging.format=xml", "format"),
        ("watch.namespaces={Analytics}", "namespaces"),
    ],
)
def test_a_wrong_value_is_refused_and_named(setting, named):
    assert named in refusal(setting)


def test_every_value_is_in_the_schema_and_commented():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(text))

    def compare(value, part, path):
        if not isinstance(value, dict) or "properties" not in part:
            return
        assert part.get("additionalProperties") is False, f"{path} takes any name"
        assert set(value) <= set(part["properties"]), path
        for name in value:
            compare(value[name], part["properties"][name], f"{path}.{name}")

    compare(values, schema, "values")
    groups = {"image", "crds", "watch", "scheduler", "logging", "serviceAccount", "rbac", "service"}
    groups |= {"networkPolicy", "podDisruptionBudget", "tls"}
    for number, line in enumerate(text):
        name = line.strip().split(":")[0]
        top = line == line.lstrip() and name in values and name not in groups
        nested = line.startswith("  ") and not line.startswith("   ") and name in nested_names(values, groups)
        if top or nested:
            assert text[number - 1].lstrip().startswith("#"), f"values.yaml:{number + 1}: {name} has no comment"


def nested_names(values, groups):
    return {name for group in groups for name in values[group]}


def test_all_namespaces_take_a_cluster_role():
    objects = render("crds.enabled=false")
    assert {"ClusterRole", "ClusterRoleBinding"} <= kinds(objects)
    assert not {"Role", "RoleBinding"} & kinds(objects)
    assert not any("--namespaces" in argument for argument in container(objects)["args"])


def test_named_namespaces_take_roles_alone():
    objects = render("crds.enabled=false", "watch.namespaces={analytics,research}")
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds(objects)
    for kind in ("Role", "RoleBinding"):
        assert [one["metadata"]["namespace"] for one in objects if one["kind"] == kind] == ["analytics", "research"]
    assert "--namespaces=analytics,research" in container(objects)["args"]
    peers = only(objects, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert peers[0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["analytics", "research"]


def test_the_rights_are_the_same_in_both_modes_and_name_every_verb():
    everywhere = [one for one in render("crds.enabled=false", "rbac.aggregate=false") if one["kind"] == "ClusterRole"]
    named = [one for one in render("crds.enabled=false", "watch.namespaces={a}") if one["kind"] == "Role"]
    assert len(everywhere) == len(named) == 1
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}
    assert everywhere[0]["rules"] == [*named[0]["rules"], nodes]
    for rule in named[0]["rules"]:
        for part in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[part]
        if "secrets" in rule["resources"] and rule["verbs"] != ["get"]:
            assert (rule["verbs"], rule["resourceNames"]) == (["create", "patch"], ["mainstay-ca", "mainstay-tls"])
        if "leases" in rule["resources"]:
            assert rule["resourceNames"] == ["mainstay-scheduler"]
        if "pods" in rule["resources"]:
            assert rule["verbs"] == ["list", "watch"]


def test_nodes_are_watched_where_the_release_may():
    [role] = [one for one in render("rbac.aggregate=false", "watch.nodes=false") if one["kind"] == "ClusterRole"]
    assert not any("nodes" in rule["resources"] for rule in role["rules"])
    for values, watches in [((), True), (("watch.nodes=false",), False), (("watch.namespaces={a}",), False)]:
        assert ("--watch-nodes" in container(render(*values))["args"]) == watches, values


def test_the_pod_satisfies_the_restricted_pod_security_standard():
    pod = only(render(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC", "volumes"))
    for one in pod["containers"]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert one["resources"]["requests"] and one["resources"]["limits"]["memory"]
        assert not any("hostPort" in port for port in one["ports"])


def test_the_next_pod_is_there_before_the_old_one_goes():
    deployment = only(render(), "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_several_pods_are_on_several_nodes_and_evicted_one_by_one():
    objects = render("replicaCount=3")
    deployment = only(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 3
    (term,) = deployment["template"]["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == deployment["selector"]["matchLabels"]
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    mine = only(render("replicaCount=3", "affinity.nodeAffinity.x=y"), "Deployment")["spec"]["template"]["spec"]["affinity"]
    assert mine == {"nodeAffinity": {"x": "y"}}
    assert "affinity" not in only(render(), "Deployment")["spec"]["template"]["spec"]


def test_the_pod_keeps_its_labels_when_the_chart_is_upgraded():
    deployment = only(render(), "Deployment")["spec"]
    assert deployment["template"]["metadata"]["labels"] == deployment["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ((), "mainstay.dev/operator:dev"),
        (("image.tag=1.2.3",), "mainstay.dev/operator:1.2.3"),
        (("image.registry=registry.example",), "registry.example/mainstay.dev/operator:dev"),
        (("image.tag=1.2.3", "image.digest=sha256:" + "0" * 64), "mainstay.dev/operator@sha256:" + "0" * 64),
    ],
)
def test_the_image_name_is_put_together(settings, image):
    assert container(render(*settings))["image"] == image


def test_the_crd_is_the_generated_one_and_stays_when_the_release_goes():
    files = sorted((CHART / "files").glob("*.yaml"))
    assert files, "run `make generate`"
    crds = {one["metadata"]["name"]: one for one in render() if one["kind"] == "CustomResourceDefinition"}
    assert len(crds) == len(files)
    for file in files:
        source = yaml.safe_load(file.read_text())
        crd = crds[source["metadata"]["name"]]
        assert crd["spec"] == source["spec"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert crd["metadata"]["labels"]["app.kubernetes.io/name"] == "mainstay"


def test_crds_can_be_left_out_and_let_go():
    assert "CustomResourceDefinition" not in kinds(render("crds.enabled=false"))
    for one in render("crds.keep=false"):
        assert "helm.sh/resource-policy" not in one["metadata"].get("annotations", {})


def test_the_network_policy_opens_the_scheduler_ports_and_http():
    ingress = only(render("scheduler.portFrom=9000", "scheduler.portCount=10"), "NetworkPolicy")["spec"]["ingress"]
    assert ingress[0]["ports"] == [{"port": 9000, "endPort": 9009}]
    assert ingress[0]["from"] == [{"namespaceSelector": {}}]
    assert ingress[1] == {"ports": [{"port": "http"}]}
    assert "NetworkPolicy" not in kinds(render("networkPolicy.enabled=false"))


def test_the_disruption_budget_is_off_unless_asked_for():
    assert "PodDisruptionBudget" not in kinds(render())
    assert only(render("podDisruptionBudget.enabled=true"), "PodDisruptionBudget")["spec"]["minAvailable"] == 1


def test_an_existing_service_account_is_used():
    objects = render("serviceAccount.create=false", "serviceAccount.name=mine")
    assert "ServiceAccount" not in kinds(objects)
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert only(objects, "ClusterRoleBinding")["subjects"][0]["name"] == "mine"


def test_comms_are_encrypted_unless_said_otherwise():
    def plain(*settings):
        return [word for word in container(render(*settings))["args"] if word.startswith("--plain")]
    assert plain() == []
    assert plain("tls.plainNamespaces={a,b}") == ["--plain-namespaces=a,b"]
    assert plain("tls.enabled=false", "tls.plainNamespaces={a,b}") == ["--plain-namespaces=*"]
    assert "--certificate-lifetime=12h" in container(render("tls.certificateLifetime=12h"))["args"]


def test_extras_reach_the_operator():
    one = container(render("extraArgs={--one}", "extraEnv[0].name=RUST_BACKTRACE", "extraEnv[0].value=full"))
    assert one["args"][-1] == "--one"
    assert one["env"][-1] == {"name": "RUST_BACKTRACE", "value": "full"}
    assert {item["name"] for item in one["env"]} >= {"POD_NAME", "POD_IP"}


def test_there_are_few_templates():
    assert len(list((CHART / "templates").iterdir())) <= 15
