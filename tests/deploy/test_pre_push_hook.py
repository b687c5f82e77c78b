"""The pre-push hook in real repositories: real commits, real pushes, what the remote has afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from layerwatch.metrics.rules import RULES
from layerwatch_testing import processes
from layerwatch_testing.cimachines import CI, tools
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import Network, finetuned, network, with_wrong_scale

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

TUNED = finetuned(network())


@dataclass(frozen=True)
class Repository:
    """A clone with the hook in it, and the remote that it pushes to."""

    folder: Path
    remote: Path
    calls: Path

    def git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run git; the tools of the hook are on PATH."""
        fixed = {
            f"GIT_{who}_{what}": "tester" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = processes.environment(
            **fixed,
            GIT_CONFIG_GLOBAL="/dev/null",
            GIT_CONFIG_NOSYSTEM="1",
            XDG_CACHE_HOME=str(self.folder.parent / "cache"),
            CALLS=str(self.calls),
        )
        environment["PATH"] = os.pathsep.join([str(self.folder.parent / "tools"), environment["PATH"]])
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=240,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def commit(self, *versions: tuple[str, Network]) -> None:
        """Versions, by their path below models/, in one commit."""
        for path, state in versions:
            folder = self.folder / "models" / path
            folder.mkdir(parents=True, exist_ok=True)
            write_safetensors(folder / "weights.safetensors", state)
        self.commit_all()

    def commit_all(self) -> None:
        """What lies there."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "versions")

    def push(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Push a branch; may be refused by the hook."""
        return self.git("push", "origin", *(arguments or ("HEAD:refs/heads/main",)), check=False)

    def pushed(self) -> bool:
        """Whether the remote has what is checked out."""
        done = self.git("ls-remote", "origin", "refs/heads/main")
        return done.stdout.split("\t")[0] == self.git("rev-parse", "HEAD").stdout.strip()

    def asked(self) -> list[str]:
        """The commands that `pretending` was called with since the last time, arguments separated by bars."""
        found = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A new clone of an empty remote."""
    found = Repository(tmp_path / "a clone", tmp_path / "remote.git", tmp_path / "calls")
    found.folder.mkdir()
    tools(tmp_path / "tools")
    found.git("init", "--quiet", "--bare", str(found.remote))
    found.git("init", "--quiet", "--initial-branch", "work", ".")
    found.git("remote", "add", "origin", str(found.remote))
    hooks = found.folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    shutil.copy(CI / "pre-push" / "pre-push", hooks / "pre-push")
    return found


@pytest.fixture
def pretending(repository: Repository) -> Repository:
    """Its layerwatch only notes what it was asked, and finds what is called bad bad.

    What is judged is what the files hold, so the names in the notes are those below the repository.
    """
    program = repository.folder.parent / "tools" / "noting"
    program.write_text(
        "#!/bin/sh\n"
        "for one; do case $one in */new/models/*) one=${one##*/new/} ;; */old/models/*) one=old:${one##*/old/} ;; esac\n"
        'printf \'%s|\' "$one"; done >>"$CALLS"; echo >>"$CALLS"\n'
        "for one; do :; done\n"
        'if grep -rqs BAD "$one"; then exit 1; fi\n'
        'if [ ! -e "$one" ]; then exit 2; fi\n'
    )
    program.chmod(0o755)
    repository.git("config", "layerwatch.command", str(program))
    return repository


def write(repository: Repository, path: str, text: str = "good") -> None:
    """A weight file, whatever it holds."""
    file = repository.folder / "models" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_healthy_versions_are_pushed(repository: Repository) -> None:
    repository.commit(("fraud/v1", network()), ("fraud/v2", TUNED))

    done = repository.push()

    assert done.returncode == 0, done.stderr
    assert repository.pushed()
    assert "layerwatch: models/fraud/v1, against nothing" in done.stderr
    assert "layerwatch: models/fraud/v2, against v1" in done.stderr


def test_the_configuration_is_the_one_of_gits_settings_and_none_of_the_working_tree(
    repository: Repository,
) -> None:
    text = yaml.safe_dump({"rules": {rule.name: {"enabled": False} for rule in RULES}})
    (repository.folder / "layerwatch.yaml").write_text(text)
    repository.commit(("fraud/v1", network()), ("fraud/v2", with_wrong_scale(TUNED)))

    assert repository.push().returncode != 0
    assert not repository.pushed()
    repository.git("config", "layerwatch.config", "layerwatch.yaml")
    assert repository.push().returncode == 0
    assert repository.pushed()


def test_a_broken_version_is_not_pushed(repository: Repository) -> None:
    repository.commit(("fraud model/v 1", network()), ("fraud model/v 2", with_wrong_scale(TUNED)))

    done = repository.push()

    assert done.returncode == 1
    assert "layerwatch: models/fraud model/v 2 has findings: not pushed" in done.stderr
    assert "fc2" in done.stderr
    assert not repository.pushed()
    assert repository.push("--no-verify", "HEAD:refs/heads/main").returncode == 0


def test_what_cannot_be_examined_is_not_pushed_and_not_called_a_finding(repository: Repository) -> None:
    repository.commit(("fraud/v1", network()))
    file = repository.folder / "models" / "fraud" / "v1" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    repository.commit_all()

    done = repository.push()

    assert done.returncode == 1
    assert "layerwatch: models/fraud/v1 could not be examined: not pushed" in done.stderr
    assert "findings" not in done.stderr
    assert not repository.pushed()


def test_the_pushed_commit_is_judged_and_not_what_lies_there(repository: Repository) -> None:
    repository.commit(("fraud/v1", network()), ("fraud/v2", with_wrong_scale(TUNED)))
    write_safetensors(repository.folder / "models" / "fraud" / "v2" / "weights.safetensors", TUNED)

    assert repository.push().returncode == 1
    repository.commit_all()
    done = repository.push()
    assert done.returncode == 0, done.stderr
    assert repository.pushed()


def test_without_layerwatch_nothing_is_pushed(repository: Repository) -> None:
    repository.git("config", "layerwatch.command", "no-such-command")
    repository.commit(("fraud/v1", network()))

    done = repository.push()

    assert "no-such-command is not on PATH: install it, or git config layerwatch.command" in done.stderr
    assert not repository.pushed()


def test_a_version_is_held_against_the_one_before_it_in_natural_order(pretending: Repository) -> None:
    for version in ("v2", "v9", "v10"):
        write(pretending, f"m/{version}/w.pt")
    pretending.commit_all()

    assert pretending.push().returncode == 0

    assert [one.split("|")[1:] for one in pretending.asked()] == [
        [
            "--config",
            "/dev/null",
            "--fail-on",
            "critical",
            "--baseline",
            "old:models/m/v9",
            "--",
            "models/m/v10",
            "",
        ],
        ["--config", "/dev/null", "--fail-on", "critical", "--", "models/m/v2", ""],
        [
            "--config",
            "/dev/null",
            "--fail-on",
            "critical",
            "--baseline",
            "old:models/m/v2",
            "--",
            "models/m/v9",
            "",
        ],
    ]


def test_only_what_the_push_brings_is_judged(pretending: Repository) -> None:
    write(pretending, "m/v1/w.pt")
    pretending.commit_all()
    assert pretending.push().returncode == 0
    assert len(pretending.asked()) == 1

    (pretending.folder / "README.md").write_text("models/m/v1/ is described here")
    pretending.commit_all()
    write(pretending, "m/v2/w.pt")
    pretending.commit_all()
    assert pretending.push().returncode == 0
    (asked,) = pretending.asked()
    assert "|models/m/v2|" in asked

    (pretending.folder / "README.md").write_text("nothing about models")
    pretending.commit_all()
    assert pretending.push().returncode == 0
    assert pretending.asked() == []


def test_a_version_that_was_changed_in_place_is_held_against_what_the_remote_has(
    pretending: Repository,
) -> None:
    write(pretending, "m/v1/w.pt")
    write(pretending, "m/v2/w.pt")
    pretending.commit_all()
    pretending.push()
    pretending.asked()
    write(pretending, "m/v2/w.pt", "other")
    pretending.commit_all()

    done = pretending.push()

    (asked,) = pretending.asked()
    assert "|--baseline|old:models/m/v2|--|models/m/v2|" in asked
    assert "models/m/v2, against what origin has" in done.stderr


def test_a_bad_version_in_any_commit_of_the_push_stops_it_unless_it_is_gone(pretending: Repository) -> None:
    write(pretending, "m/v1/w.pt", "BAD")
    pretending.commit_all()
    write(pretending, "m/v2/w.pt")
    pretending.commit_all()
    assert pretending.push().returncode == 1

    shutil.rmtree(pretending.folder / "models" / "m" / "v1")
    pretending.commit_all()
    assert pretending.push().returncode == 0
    assert pretending.pushed()


def test_a_bad_version_that_comes_by_a_merge_is_seen(pretending: Repository) -> None:
    write(pretending, "m/v1/w.pt")
    pretending.commit_all()
    pretending.push()
    pretending.git("checkout", "--quiet", "-b", "side")
    write(pretending, "m/v2/w.pt", "BAD")
    pretending.commit_all()
    pretending.git("checkout", "--quiet", "work")
    (pretending.folder / "README.md").write_text("a commit")
    pretending.commit_all()
    pretending.git("merge", "--quiet", "--no-ff", "--message", "merge", "side")

    assert pretending.push().returncode == 1
    assert not pretending.pushed()


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "quote\"s'",
        "new\nline",
        "a line break at the end\n",
        "tab\there",
        "ünïcode",
        "-rf",
        "$(touch pwned)",
        "back\\slash\\new",
        "*",
    ],
)
def test_names_are_taken_as_they_are(pretending: Repository, name: str) -> None:
    write(pretending, f"m {name}/v1 {name}/w.pt")
    write(pretending, f"m {name}/v2 {name}/w {name}.pt", "BAD")
    pretending.commit_all()

    done = pretending.push()

    assert done.returncode == 1, done.stderr
    asked = "".join(f"{line}\n" for line in pretending.asked())
    assert f"|models/m {name}/v2 {name}|" in asked
    assert f"|old:models/m {name}/v1 {name}|" in asked
    assert not list(pretending.folder.rglob("pwned"))


def test_a_name_that_cannot_be_told_apart_stops_the_push(pretending: Repository) -> None:
    write(pretending, "m/v\x01/w.pt")
    pretending.commit_all()

    done = pretending.push()

    assert done.returncode == 1
    assert "the character 1 in its name" in done.stderr


def test_refs_hidden_folders_and_lineage_are_no_versions(pretending: Repository) -> None:
    write(pretending, "m/v1/w.pt")
    write(pretending, "m/.unfinished/w.pt", "BAD")
    write(pretending, ".hidden/v1/w.pt", "BAD")
    write(pretending, "m/lineage.json", "BAD")
    (pretending.folder / "models" / "m" / "champion").symlink_to("v1")
    (pretending.folder / "other").mkdir()
    (pretending.folder / "other" / "w.pt").write_text("BAD")
    pretending.commit_all()

    done = pretending.push()

    assert done.returncode == 0, done.stderr
    (asked,) = pretending.asked()
    assert "|models/m/v1|" in asked


def test_one_file_may_be_a_version(pretending: Repository) -> None:
    write(pretending, "m/v1.pt")
    write(pretending, "m/v2.pt", "BAD")
    pretending.commit_all()

    assert pretending.push().returncode == 1
    assert any("|--baseline|old:models/m/v1.pt|--|models/m/v2.pt|" in one for one in pretending.asked())


def test_attributes_cannot_hide_a_file(pretending: Repository) -> None:
    (pretending.folder / ".gitattributes").write_text("models/** export-ignore\n")
    write(pretending, "m/v1/w.pt", "BAD")
    pretending.commit_all()

    assert pretending.push().returncode == 1


def test_filters_are_applied_so_that_weights_and_not_pointers_are_judged(pretending: Repository) -> None:
    # As Git LFS does: what is committed stands for what is checked out.
    pretending.git("config", "filter.stand-in.clean", "echo pointer")
    pretending.git("config", "filter.stand-in.smudge", "echo BAD")
    (pretending.folder / ".gitattributes").write_text("models/** filter=stand-in\n")
    write(pretending, "m/v1/w.pt")
    pretending.commit_all()
    assert pretending.git("show", "HEAD:models/m/v1/w.pt").stdout == "pointer\n"

    assert pretending.push().returncode == 1


def test_settings_are_gits(pretending: Repository) -> None:
    pretending.git("config", "layerwatch.models", "the registry/")
    pretending.git("config", "layerwatch.failOn", "warning")
    file = pretending.folder / "the registry" / "m" / "v1" / "w.pt"
    file.parent.mkdir(parents=True)
    file.write_text("good")
    write(pretending, "m/v1/w.pt", "BAD")
    pretending.commit_all()

    assert pretending.push().returncode == 0
    (asked,) = pretending.asked()
    assert asked.startswith("gate|--config|/dev/null|--fail-on|warning|--|")
    assert asked.endswith("/new/the registry/m/v1|")


def test_deleting_a_branch_and_pushing_nothing_new_judge_nothing(pretending: Repository) -> None:
    write(pretending, "m/v1/w.pt")
    pretending.commit_all()
    pretending.push()
    pretending.push("HEAD:refs/heads/other")
    pretending.asked()

    assert pretending.push("--delete", "other").returncode == 0
    assert pretending.push("HEAD:refs/heads/third").returncode == 0
    assert pretending.asked() == []


def test_several_branches_in_one_push_are_all_judged(pretending: Repository) -> None:
    write(pretending, "m/v1/w.pt")
    pretending.commit_all()
    pretending.git("checkout", "--quiet", "-b", "bad")
    write(pretending, "m/v2/w.pt", "BAD")
    pretending.commit_all()

    done = pretending.push("work:refs/heads/main", "bad:refs/heads/bad")

    assert done.returncode == 1
    assert pretending.git("ls-remote", "origin").stdout == ""


def test_a_force_push_over_commits_that_are_not_here_is_judged(
    pretending: Repository, tmp_path: Path
) -> None:
    write(pretending, "m/v1/w.pt")
    pretending.commit_all()
    pretending.push()
    other = tmp_path / "other"
    pretending.git("clone", "--quiet", "--branch", "main", str(pretending.remote), str(other))
    (other / "more.txt").write_text("of somebody else")
    for arguments in (
        ["add", "--all"],
        ["commit", "--quiet", "-m", "more"],
        ["push", "--quiet", "origin", "main"],
    ):
        pretending.git("-C", str(other), *arguments)
    pretending.asked()
    write(pretending, "m/v2/w.pt", "BAD")
    pretending.commit_all()

    assert pretending.push("--force", "HEAD:refs/heads/main").returncode == 1
    assert any("|models/m/v2|" in one for one in pretending.asked())


def test_nothing_is_left_behind(pretending: Repository, tmp_path: Path) -> None:
    write(pretending, "m/v1/w.pt", "BAD")
    pretending.commit_all()
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    pretending.git("-c", "core.quotePath=true", "push", "origin", "HEAD:refs/heads/main", check=False)

    assert list(temporary.iterdir()) == []
    assert pretending.git("status", "--porcelain").stdout == ""


@pytest.mark.parametrize("setting", ["./models", "/models/", "models/", ".//models"])
def test_the_folder_may_be_written_in_any_way(pretending: Repository, setting: str) -> None:
    pretending.git("config", "layerwatch.models", setting)
    write(pretending, "fraud/v1/w.bin", "BAD")
    pretending.commit_all()

    assert pretending.push().returncode != 0
    assert not pretending.pushed()


@pytest.mark.parametrize("setting", [".", "./", "/"])
def test_the_repository_itself_may_be_the_registry(pretending: Repository, setting: str) -> None:
    pretending.git("config", "layerwatch.models", setting)
    (pretending.folder / "README.md").write_text("about the models")
    for version, text in (("v1", "good"), ("v2", "BAD")):
        (pretending.folder / "fraud" / version).mkdir(parents=True)
        (pretending.folder / "fraud" / version / "w.bin").write_text(text)
    pretending.commit_all()

    done = pretending.push()

    assert done.returncode != 0
    assert "layerwatch: fraud/v1, against nothing" in done.stderr
    assert "layerwatch: fraud/v2, against v1" in done.stderr
    assert "README" not in done.stderr


def test_a_misspelt_folder_stops_the_push_and_no_version_at_all_is_told(pretending: Repository) -> None:
    write(pretending, "fraud/v1/w.bin")
    pretending.commit_all()
    pretending.git("config", "layerwatch.models", "modles")

    done = pretending.push()

    assert done.returncode != 0
    assert "layerwatch.models is modles, and the pushed commit has no such folder" in done.stderr
    pretending.git("config", "--unset", "layerwatch.models")
    (pretending.folder / "notes.txt").write_text("no model")
    pretending.git("rm", "--quiet", "-r", "models")
    pretending.commit_all()

    done = pretending.push()

    assert done.returncode == 0
    assert "no version below models/ in this push: nothing judged" in done.stderr
