"""`pxed image`: what it prints, its exit codes, and whom `rm` asks."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pxed.cli import main
from pxed.images.library import Library
from support.disks import MIB, sample_disk, write_disk


class Cli:
    """The command line over a configuration of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.config = base / "pxed.toml"
        self.config.write_text(
            f'[server]\naddress = "127.0.0.1"\nstate_dir = "{base}/state"\nsocket = "{base}/sock"\n'
            f'[tftp]\nroot = "{base}"\n'
        )
        self.library = Library(base / "state/images")

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["--config", str(self.config), "image", *map(str, arguments)])


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.library.close()


def test_the_life_of_an_image(cli: Cli, tmp_path: Path) -> None:
    disk = sample_disk(tmp_path / "disk")
    done = cli("import", disk, "--name", "lab")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("lab: image ") and "import lab: 100%" in done.stderr
    listed = json.loads(cli("list", "--json").stdout)
    assert [(image["name"], image["size"]) for image in listed] == [("lab", 24 * MIB + 1024)]
    table = [line.split("\t") for line in cli("list").stdout.splitlines()]
    assert table[0][:2] == ["NAME", "ID"] and table[1][:2] == ["lab", listed[0]["id"][:12]]
    assert json.loads(cli("show", "lab", "--json").stdout)["image"] == listed[0]
    assert "9 chunks" in cli("show", listed[0]["id"][:8]).stdout
    verified = cli("verify")
    assert verified.exit_code == 0 and "All is well." in verified.stdout
    assert cli("export", "lab", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out").read_bytes() == disk.read_bytes()
    removed = cli("rm", "lab")
    assert removed.exit_code == 0 and "given back" in removed.stdout
    assert "No server is running" in removed.stderr
    assert json.loads(cli("list", "--json").stdout) == []


def test_partitions_are_shown(cli: Cli, tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", 32 * MIB)
    script = "label: gpt\nsize=10M, name=esp\n"
    subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
    cli("import", disk, "--name", "lab")
    shown = cli("show", "lab").stdout
    assert "gpt, 1 partition" in shown and "1 partitions" not in shown and "1\t1048576\t10.0 MiB" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "none", "--name", "x"), "none cannot be read: No such file or directory."),
        (("show", "lob"), "There is no image lob; did you mean lab?"),
        (("export", "lab", "disk"), "disk exists already."),
        (("rm", "nothing"), "There is no image nothing."),
        (("import", "disk", "--name", "lab"), "There is an image lab already: say --replace"),
        (("import", "disk", "--name", "a/b"), "a/b is not a name for an image"),
    ],
)
def test_mistakes_are_sentences(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.library.import_image(sample_disk(tmp_path / "disk"), "lab")
    result = cli(*arguments)
    assert result.exit_code == 1
    assert said in result.stderr and "Traceback" not in result.output


def test_replace_says_what_became_of_the_old_one(cli: Cli, tmp_path: Path) -> None:
    old = cli.library.import_image(sample_disk(tmp_path / "a"), "lab").image
    done = cli("import", sample_disk(tmp_path / "b", seed=5), "--name", "lab", "--replace")
    assert done.exit_code == 0 and f"pxed image rm {old.id[:12]}" in done.stderr
    assert cli("rm", old.id[:12]).exit_code == 0
    assert [image.name for image in cli.library.list()] == ["lab"]


def test_damage_is_named_and_fails(cli: Cli, tmp_path: Path) -> None:
    cli.library.import_image(sample_disk(tmp_path / "disk"), "lab")
    (pack,) = (tmp_path / "state/images/packs").iterdir()
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.write_bytes(data)
    result = cli("verify", "lab")
    assert result.exit_code == 1 and "chunk 0 at byte 0" in result.stdout
    assert ": 1 damaged chunk;" in result.stdout and "1 image, 7 chunks, " in result.stdout
    machine = cli("verify", "--json")
    assert machine.exit_code == 1 and json.loads(machine.stdout)["bad"][0]["chunks"][0]["index"] == 0


def test_rm_asks_a_running_server(cli: Cli, tmp_path: Path) -> None:
    """Somebody listens who is no server of ours: its answer counts, nothing is removed behind its back."""
    cli.library.import_image(sample_disk(tmp_path / "disk"), "lab")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()

        def answer() -> None:
            listener.settimeout(60)
            probe, _ = listener.accept()
            probe.close()
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(65536).startswith(b"DELETE /images/lab ")
                body = b'{"status_code":409,"detail":"lab: job 7 wants it"}'
                head = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % len(body) + body)

        server = threading.Thread(target=answer)
        server.start()
        result = cli("rm", "lab")
        server.join()
    assert result.exit_code == 1
    assert cli.library.get("lab").name == "lab"
    # A socket file that a killed server left behind is no server.
    assert cli("rm", "lab").exit_code == 0
