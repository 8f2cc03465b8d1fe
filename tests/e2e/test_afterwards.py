"""What must be so when all stories are told."""

from kubectl import await_condition


def test_the_operator_needed_no_other_rights(operator):
    forbidden = [line for line in operator.logs().splitlines() if "forbidden" in line.lower()]
    assert forbidden == []
    assert operator.lines("ERROR") == []
    assert "panicked" not in operator.logs()


def test_all_namespaces_went(kubectl):
    def left():
        return kubectl.items("namespaces", "--selector=mainstay.dev/made-by=e2e")
    await_condition("the namespaces of the stories to go", lambda: not left(), 90)
