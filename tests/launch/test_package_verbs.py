"""What a package can do beside training, called as its configuration names it."""

import pytest

from conftest import PACKAGE

DATA = '''"""A verb before a run, and one on a run."""


def weigh(data, n: int = 3, seed: int = 0):
    return {"rows": data["rows"] if isinstance(data, dict) else len(data.train), "n": n, "seed": seed}


def count(run, above: float = 0.0):
    (run.directory / "counted.txt").write_text(str(above))
    return {"run": run.id, "above": above}
'''
VERBS = """verbs:
  weigh: {_target_: toyverbs.weigh, data: "${data}", n: 3, seed: "${seed}"}
  count: {_target_: toyverbs.count, _partial_: true, above: 0.5}
"""


@pytest.fixture
def own(checkout):
    (checkout.root / "packages" / PACKAGE / "src" / "toyverbs.py").write_text(DATA)
    path = checkout.root / "conf" / "pkg" / f"{PACKAGE}.yaml"
    path.write_text(path.read_text() + VERBS)
    return checkout


def test_a_verb_before_a_run_takes_its_arguments_and_those_of_the_configuration(own):
    done = own.call("weigh", f"pkg={PACKAGE}", "n=7", "seed=2", "scale=smoke")
    assert done.code == 0, done.err
    assert all(line in done.err for line in ("n: 7", "seed: 2", "rows: "))
    assert not own.runs.exists(), "nothing ran"


@pytest.mark.parametrize(
    "words, complaint",
    [
        ([], f"make weigh pkg=<name>, one of {PACKAGE}"),
        ([f"pkg={PACKAGE}", "m=7"], "`weigh` has no argument 'm'"),
        ([f"pkg={PACKAGE}", "n=seven"], "n=seven: int is wanted"),
        (["pkg=lensfind"], f"pkg=lensfind has no verb 'weigh'; {PACKAGE} have"),
    ],
)
def test_a_mistake_with_a_verb_is_named(words, complaint, own):
    done = own.call("weigh", *words)
    assert done.code == 2
    assert complaint in done.err


def test_a_verb_on_a_run_uses_its_record(own):
    trained = own.call("train", f"pkg={PACKAGE}", "scale=smoke", "logger=none", "hardware.threads=1")
    assert trained.code == 0, trained.err
    run = own.newest()
    assert list(run.config["verbs"]) == ["count"], "verbs before a run are no part of its record"
    done = own.call("count", "run=last", "above=0.25")
    assert done.code == 0, done.err
    assert (run.directory / "counted.txt").read_text() == "0.25"
    for words, complaint in (
        (("run=last", "abov=1"), "`count` has no argument 'abov'. Did you mean 'above'"),
        ((f"pkg={PACKAGE}",), "say run="),
    ):
        done = own.call("count", *words)
        assert (done.code, complaint in done.err) == (2, True), done.err
    done = own.call("weigh", "run=last")
    assert (done.code, "does not work on a run" in done.err) == (2, True)


def test_a_choice_of_the_package_needs_no_folder(own):
    done = own.call("config", f"pkg={PACKAGE}", "data=synthetic")
    assert done.code == 0, done.err
    assert own.call("config", "pkg=lensfind", "model=resnet18").code == 0
    assert own.call("config", "pkg=lensfind", "model=resnet19").code == 2
