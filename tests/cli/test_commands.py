"""`pxed machine` and `pxed job` against a running API: JSON shapes, plain text in a pipe, errors as one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pxed.cli import COMMANDS, main
from pxed.types import Event, JobState
from support.control import IMAGE
from support.live_api import LiveApi

Pxed = Callable[..., Result]
MAC = "52:54:00:12:34:56"


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def with_job(pxed: Pxed) -> None:
    ok(pxed("machine", "add", "--mac", MAC, "--name", "desk-1"))
    ok(pxed("job", "add", "--machine", "desk-1", "--image", "debian"))


def test_help_names_every_command_and_imports_none() -> None:
    out = ok(CliRunner().invoke(main, ["--help"]))
    assert all(f"  {name} " in out for name in COMMANDS)


def test_version() -> None:
    assert "0.1.0" in ok(CliRunner().invoke(main, ["--version"]))


def test_machine_add_list_show_rm(pxed: Pxed) -> None:
    assert ok(pxed("machine", "add", "--mac", MAC, "--name", "desk-1")) == "Machine 1 (desk-1) added.\n"
    header, row = (line.split("\t") for line in ok(pxed("machine", "list")).splitlines())
    assert header == ["ID", "MAC", "NAME", "PRODUCT", "JOB", "LAST SEEN"]
    assert row[:5] == ["1", MAC, "desk-1", "", ""]
    shown = ok(pxed("machine", "show", MAC))
    assert f"MAC\t{MAC}\n" in shown
    assert "\tseen\tThe machine was added.\n" in shown
    assert ok(pxed("machine", "rm", "desk-1")) == "Machine desk-1 removed.\n"
    assert ok(pxed("machine", "list", "--json")) == "[]\n"


def test_machine_json(pxed: Pxed) -> None:
    with_job(pxed)
    machine = {"id": 1, "macs": [MAC], "name": "desk-1", "known": True}
    assert machine.items() <= json.loads(ok(pxed("machine", "list", "--json")))[0].items()
    shown = json.loads(ok(pxed("machine", "show", "1", "--json")))
    assert machine.items() <= shown["machine"].items()
    assert [event["kind"] for event in shown["timeline"]] == ["seen"]
    assert [job["image_name"] for job in shown["jobs"]] == ["debian"]
    added = json.loads(ok(pxed("machine", "add", "--mac", "52:54:00:00:00:02", "--json")))
    assert added["id"] == 2


def test_machine_list_says_what_each_is_doing(pxed: Pxed, api: LiveApi) -> None:
    with_job(pxed)
    api.control.change_job(1, state=JobState.RUNNING, step="restore", percent=42.0)
    assert "restore debian running restore 42%" in ok(pxed("machine", "list"))


def test_job_add_list_show_cancel_retry(pxed: Pxed) -> None:
    ok(pxed("machine", "add", "--mac", MAC))
    assert ok(pxed("job", "add", "--machine", MAC, "--image", "debian")) == (
        f"Job 1: restore debian on {MAC}, pending.\n"
    )
    header, row = (line.split("\t") for line in ok(pxed("job", "list")).splitlines())
    assert header == ["ID", "MACHINE", "IMAGE", "STATE", "STEP", "%", "RATE", "CHANGED", "REASON"]
    assert row[:5] == ["1", MAC, "debian", "pending", ""]
    assert f"image\t{IMAGE.id}\n" in ok(pxed("job", "show", "1"))
    assert "transport\tauto\n" in ok(pxed("job", "show", "1"))
    ok(pxed("job", "create", "--machine", MAC, "--image", "debian", "--transport", "http"))
    assert "transport\thttp\n" in ok(pxed("job", "show", "2"))
    ok(pxed("job", "cancel", "2"))
    assert ok(pxed("job", "cancel", "1")) == "Job 1 is cancelled.\n"
    assert ok(pxed("job", "list", "--unfinished")).count("\n") == 1
    assert ok(pxed("job", "retry", "1")) == "Job 1 is pending.\n"


def test_job_json(pxed: Pxed, api: LiveApi) -> None:
    with_job(pxed)
    api.control.events.append(Event(2.0, MAC, "claim", "The agent claimed the job.", 1, 1))
    made = json.loads(ok(pxed("job", "create", "--machine", "1", "--image", "debian", "--debug", "--json")))
    assert (made["id"], made["state"], made["debug"]) == (2, "pending", True)
    assert [job["id"] for job in json.loads(ok(pxed("job", "list", "--json")))] == [1, 2]
    shown = json.loads(ok(pxed("job", "show", "1", "--json")))
    assert shown["job"]["id"] == 1
    assert [event["kind"] for event in shown["timeline"]] == ["claim"]


ERRORS = {
    "unknown machine": (("machine", "show", "x?y z"), "pxed: No machine is known as x?y z.\n"),
    "machine without a key": (
        ("machine", "show", ""),
        "pxed: Say which machine: by its id, a MAC, its SMBIOS UUID or its name.\n",
    ),
    "no machine to remove": (
        ("machine", "rm", ""),
        "pxed: Say which machine: by its id, a MAC, its SMBIOS UUID or its name.\n",
    ),
    "no image to remove": (("image", "rm", ""), "pxed: Say which image: by its name or its id.\n"),
    "slash in a name": (
        ("machine", "add", "--mac", MAC, "--name", "a/b"),
        "pxed: 'a/b' cannot be a machine's name: a name has no slash.\n",
    ),
    "unknown image": (("job", "add", "--machine", "1", "--image", "x"), "pxed: There is no image x.\n"),
    "unknown job": (("job", "show", "9"), "pxed: There is no job 9.\n"),
    "job that is in no state for it": (("job", "retry", "1"), "pxed: Job 1 is pending.\n"),
    "machine with a job": (("machine", "rm", "1"), "pxed: The machine has an unfinished job.\n"),
    "machine twice": (("machine", "add", "--mac", MAC), f"pxed: The machine {MAC} is known already.\n"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_error_is_one_sentence(pxed: Pxed, arguments: tuple[str, ...], message: str) -> None:
    with_job(pxed)
    result = pxed(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)


def test_no_server(tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text(f'[server]\naddress="127.0.0.1"\nsocket="{tmp_path}/s"\n[tftp]\nroot="/srv"\n')
    result = CliRunner().invoke(main, ["--config", str(config), "job", "list"])
    assert (result.exit_code, result.stderr) == (
        1,
        f"pxed: No server answers at {tmp_path}/s; is `pxed serve` running with this configuration?\n",
    )


def test_mistake_in_the_config(tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text('[server]\nadress="127.0.0.1"\n[tftp]\nroot="/srv"\n')
    for command in (["job", "list"], ["serve"], ["machine", "list"]):
        result = CliRunner().invoke(main, ["--config", str(config), *command])
        assert result.exit_code == 1
        assert result.stderr == (
            f"pxed: {config}:2: key `server.adress`: expected one of `address`, `state_dir`, `socket`, `user`, "
            "`rates`; did you mean `server.address`?\n"
        )


def test_serve_takes_its_own_config_option(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["serve", "--config", str(tmp_path / "none.toml")])
    assert result.exit_code == 1
    assert (
        result.stderr == f"pxed: {tmp_path}/none.toml: the configuration cannot be read: No such file or directory.\n"
    )


def test_unknown_command() -> None:
    result = CliRunner().invoke(main, ["machines"])
    assert result.exit_code == 2
    assert "No such command 'machines'" in result.stderr


def test_status(pxed: Pxed) -> None:
    with_job(pxed)
    shown = dict(line.split("\t", 1) for line in ok(pxed("status")).splitlines())
    assert shown["machines"] == "1"
    assert shown["jobs"] == "1 pending"
    assert json.loads(ok(pxed("status", "--json")))["machines"] == 1
