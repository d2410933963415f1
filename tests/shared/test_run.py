"""A run has one directory and one identity, and nothing it saved is lost."""

import errno
import json
import os
import subprocess
import sys
import threading

import pytest

from skyloom.errors import MissingFile, UserError
from skyloom.run import Run, find_run, judge_goals, list_runs
from skyloom.run.files import write_text, write_whole
from skyloom.run.provenance import record_provenance
from skyloom.run.seeds import derive, numpy_generator, torch_generator

CONFIG = {"pkg": "a", "experiment": "b", "title": "t"}


def test_runs_started_in_the_same_second_never_meet(tmp_path):
    made: list[Run] = []
    threads = [threading.Thread(target=lambda: made.append(Run.create(tmp_path, CONFIG))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.directory for run in made}) == 40
    assert len({run.id for run in made}) == 40


def test_an_existing_directory_is_refused_and_left_alone(tmp_path):
    run = Run.create(tmp_path, CONFIG, directory=tmp_path / "x")
    before = (run.directory / "result.json").read_text()
    with pytest.raises(UserError, match="never overwrites"):
        Run.create(tmp_path, CONFIG, directory=tmp_path / "x")
    assert (run.directory / "result.json").read_text() == before


def test_unwritable_run_directory_says_what_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="runs_dir="):
        Run.create(tmp_path / "file" / "sub", CONFIG)


def test_a_second_process_is_refused_while_the_first_lives_and_a_dead_one_reads_as_killed(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    hold = (
        "import sys, time; from skyloom.run import Run; r = Run.open(sys.argv[1], True).acquire(); "
        "r.update(status='running'); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(run.directory)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert run.status == "running"
        with pytest.raises(UserError, match="another process"):
            run.acquire()
    finally:
        holder.kill()
        holder.wait()
    assert run.status == "killed"
    run.acquire().release()


def test_a_torn_last_line_of_metrics_is_left_out_and_rows_after_a_checkpoint_are_forgotten(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    for step in range(5):
        run.append({"step": step})
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 5, "trai')
    assert [row["step"] for row in run.rows()] == [0, 1, 2, 3, 4]
    run.keep_rows(3)
    run.append({"step": 3})
    assert [row["step"] for row in run.rows()] == [0, 1, 2, 3]


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "kept.txt"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"), write_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_only_the_writable_process_writes(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    other = Run.open(run.directory)
    other.append({"step": 1})
    other.update(status="finished")
    other.write_json("x.json", {})
    assert run.rows() == []
    assert run.status == "submitted"
    assert not (run.directory / "x.json").exists()


def test_a_run_is_found_by_a_unique_part_and_an_ambiguous_part_lists_them(tmp_path):
    first = Run.create(tmp_path, CONFIG)
    second = Run.create(tmp_path, {**CONFIG, "pkg": "c"})
    assert find_run(first.id[-5:], tmp_path).directory == first.directory
    assert find_run(str(second.directory), tmp_path).directory == second.directory
    assert len(list_runs(tmp_path)) == 2
    assert [r.directory for r in list_runs(tmp_path, pkg="c")] == [second.directory]
    with pytest.raises(UserError, match="matches 2 runs"):
        find_run("b/", tmp_path)
    with pytest.raises(MissingFile, match="no run matches"):
        find_run("zzzz", tmp_path)


def test_a_run_within_another_is_not_listed_beside_it(tmp_path):
    whole = Run.create(tmp_path, CONFIG)
    member = Run.create(tmp_path, CONFIG, directory=whole.directory / "members" / "five")
    assert [run.directory for run in list_runs(tmp_path)] == [whole.directory]
    assert find_run("last", tmp_path).directory == whole.directory
    assert find_run(str(member.directory), tmp_path).directory == member.directory


def test_numbers_that_json_lacks_become_null(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    run.write_json("n.json", {"a": float("nan"), "b": [float("inf"), 1.0]})
    assert json.loads((run.directory / "n.json").read_text()) == {"a": None, "b": [None, 1.0]}


def test_goals_are_met_missed_or_unknown_and_nan_is_never_met():
    goals = [{"metric": m, **bound} for m in ("a", "b", "c") for bound in ({"min": 0.5}, {"max": 0.5})]
    judged = judge_goals(goals, {"a": 0.7, "b": float("nan")})
    assert [g["met"] for g in judged] == [True, False, None, None, None, None]
    with pytest.raises(UserError, match="cannot be read"):
        judge_goals([{"metric": "a"}], {})


def test_seeds_depend_on_every_name_and_are_the_same_everywhere():
    assert derive(0, "data", "train") == 601172882323800612
    seen = {derive(s, *names) for s in (0, 1) for names in (("a",), ("a", "b"), ("ab",), ("a", 1), ("a", "1"))}
    assert len(seen) == 10
    assert numpy_generator(1, "x").random() == numpy_generator(1, "x").random()
    assert torch_generator(1, "x").initial_seed() == derive(1, "x")


def test_provenance_freezes_code_and_command(tmp_path, monkeypatch):
    repository = tmp_path / "repo"
    repository.mkdir()
    monkeypatch.chdir(repository)
    for command in ("init -q", "config user.email a@b.c", "config user.name n"):
        subprocess.run(["git", *command.split()], check=True)
    (repository / "code.py").write_text("x = 1\n")
    subprocess.run("git add . && git commit -qm one", shell=True, check=True)
    (repository / "code.py").write_text("x = 2\n")
    run = Run.create(tmp_path / "runs", CONFIG)
    record_provenance(run, "train", ["pkg=a", "title=two words"], seed=3)
    recorded = run.provenance
    assert recorded["dirty"]
    assert "+x = 2" in (run.directory / "code.diff").read_text()
    assert recorded["command"] == "make train pkg=a 'title=two words'"
    assert len(recorded["commit"]) == 40
    assert recorded["versions"]["numpy"]
