"""The whole server as it is installed: `pxed serve` in a namespace, asked by its own commands, by curl and over DHCP.

No virtual machines: what a machine would say is said by curl.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from os import kill, umask
from pathlib import Path
from pwd import getpwnam
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lab.environment import PXED
from lab.network import Segment
from lab.proc import spawn, stop
from lab.server import Server
from pxed.api.control import Reloaded
from pxed.cli.client import Client

MIB = 1 << 20
MAC = "52:54:00:78:02:01"
UUID = "5d7c1f0e-0000-4000-8000-000000000201"
CHECK = f"/pxed/check/mac-{MAC.replace(':', '-')}/uuid-{UUID}/serial-X1/mfr-pxed/product-lab"


class Site:
    """A server with an image `golden`, and the machine's side of its HTTP."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def http(self, path: str, body: dict[str, Any] | None = None, run: str = "") -> tuple[int, str]:
        """(status, body) of a request to boot HTTP."""
        arguments = ["curl", "-s", "--max-time", "60", "-w", "\n%{http_code}"]
        if body is not None:
            arguments += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        if run:
            arguments += ["-H", f"Authorization: Bearer {run}"]
        inside = ["nsenter", "-t", str(self.server.host.pid), "-n"]
        done = subprocess.run([*inside, *arguments, f"http://10.78.0.1{path}"], capture_output=True, check=True)
        text, _, status = done.stdout.decode(errors="replace").rpartition("\n")
        return int(status), text

    def token(self) -> str:
        """The token that the check's script puts on the kernel's command line, '' when it boots the local disk."""
        status, script = self.http(CHECK)
        assert status == 200, script
        words = [word for word in script.split() if word.startswith("pxed.token=")]
        return words[0].removeprefix("pxed.token=") if words else ""

    def claim(self, token: str, agent: str = "agent-1") -> tuple[int, dict[str, Any]]:
        """What the agent's claim is answered."""
        body = {"token": token, "agent": agent, "identity": {"mac": MAC, "uuid": UUID, "serial": "X1"}}
        status, text = self.http("/pxed/agent/claim", body)
        return status, json.loads(text)

    def report(self, run: str, step: str, percent: float) -> tuple[int, dict[str, Any]]:
        """A progress report."""
        status, text = self.http("/pxed/agent/report", {"step": step, "percent": percent}, run)
        return status, json.loads(text)

    def finish(self, run: str) -> tuple[int, dict[str, Any]]:
        """The end of the job."""
        status, text = self.http("/pxed/agent/finish", {"ok": True, "step": "finish"}, run)
        return status, json.loads(text)

    def job(self, machine: str = MAC, image: str = "golden") -> int:
        """A new job's id."""
        made = json.loads(self.server.pxed("job", "add", "--machine", machine, "--image", image, "--json"))
        return int(made["id"])

    def state(self, job: int) -> str:
        """A job's state now."""
        shown: Any = self.server.json("job", "show", str(job))
        return str(shown["job"]["state"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A running server that knows one machine and one image."""
    with ExitStack() as stack:
        segment = stack.enter_context(Segment())
        environment = tmp_path / "environment"
        environment.mkdir()
        for name in ("vmlinuz", "initramfs.cpio.zst"):  # served, never booted here
            (environment / name).write_bytes(name.encode() * 1000)
        server = Server(segment.host("pxed", "10.78.0.1/24"), tmp_path, "10.78.0.1", environment)
        stack.callback(server.close)
        disk = tmp_path / "golden.raw"
        disk.write_bytes(bytes(range(256)) * (3 * MIB // 256))
        server.pxed("image", "import", disk, "--name", "golden", "--format", "raw")
        server.start()
        server.pxed("machine", "add", "--mac", MAC, "--name", "pc-1")
        yield Site(server)


pytestmark = pytest.mark.root


def refused(call: Any, *words: str) -> None:
    """A command ends with exit 1 and one sentence that has these words, no traceback."""
    with pytest.raises(RuntimeError) as caught:
        call()
    text = str(caught.value)
    assert "exit 1" in text
    assert "Traceback" not in text
    for word in words:
        assert word in text


def test_a_job_is_done_once(site: Site) -> None:
    assert site.token() == ""  # no work yet
    job = site.job()
    token = site.token()
    assert token
    assert site.token() == token  # the preboot client may ask twice
    status, answer = site.claim(token)
    assert status == 200, answer
    run = answer["run"]
    assert site.claim(token) == (200, answer)  # the answer may get lost
    assert site.claim(token, "agent-2")[0] == 409
    assert site.http(f"/pxed/image/{answer['image']}/manifest", run=run)[0] == 200
    assert site.report(run, "restore", 50.0) == (200, {"stop": ""})
    assert site.finish(run) == (200, {"then": "reboot"})
    assert site.finish(run) == (200, {"then": "reboot"})
    assert site.state(job) == "succeeded"
    assert site.token() == ""
    assert site.http(f"/pxed/image/{answer['image']}/manifest", run=run)[0] == 403


def test_image_data_needs_the_run_of_its_job_where_images_are_not_public(site: Site) -> None:
    site.job()
    (image,) = site.server.json("image", "list")  # type: ignore[misc]
    assert site.http(f"/pxed/image/{image['id']}/manifest")[0] == 200
    site.server.config.write_text(site.server.config.read_text() + "[images]\npublic = false\n")
    assert Client(str(site.server.socket)).post("/reload", {}, Reloaded).changed == ("images.public",)
    for part in ("manifest", "layout", "data"):
        assert site.http(f"/pxed/image/{image['id']}/{part}")[0] == 401
        assert site.http(f"/pxed/image/{image['id']}/{part}", run="guessed")[0] == 403


def test_job_for_an_unknown_image_or_machine_is_refused(site: Site) -> None:
    refused(lambda: site.job(image="goldne"), "goldne", "golden")
    refused(lambda: site.job(machine="pc-2"), "pc-2")


def test_second_job_of_a_machine_waits_for_the_first(site: Site) -> None:
    first, second = site.job(), site.job()
    _, answer = site.claim(site.token())
    assert answer["job_id"] == first
    assert site.state(second) == "pending"
    site.finish(answer["run"])
    _, answer = site.claim(site.token())
    assert answer["job_id"] == second


def test_image_that_a_session_sends_is_not_deleted(site: Site) -> None:
    """Nor when nobody has a job for it; a session whose machines are all gone ends, and then it is."""
    (image,) = site.server.json("image", "list")  # type: ignore[misc]
    status, text = site.http("/pxed/cast/join", {"image": image["id"], "receiver": "0123456789", "name": "pc-9"})
    assert status == 200, text
    session = json.loads(text)
    assert (session["server"], session["port"], session["receiver"]) == ("10.78.0.1", 1759, 1)
    (listed,) = site.server.json("session", "list")  # type: ignore[misc]
    assert (listed["id"], listed["state"], listed["interface"]) == (session["session"], "sending", "eth0")
    assert [receiver["name"] for receiver in listed["receivers"]] == ["pc-9"]
    refused(lambda: site.server.pxed("image", "rm", "golden"), "golden is being sent by multicast")
    refused(lambda: site.server.pxed("session", "start", "golden"), "is sending: there is nothing to start")
    status_text = site.server.pxed("status")
    assert "multicast images\trunning: 10.78.0.1, port 1759" in status_text
    assert "multicast TFTP\toff: 10.78.0.1, port 1758" in status_text


def test_image_that_a_job_wants_is_not_deleted(site: Site) -> None:
    job = site.job()
    refused(lambda: site.server.pxed("image", "rm", "golden"), str(job))
    site.server.pxed("job", "cancel", str(job))
    site.server.pxed("image", "rm", "golden")
    assert site.server.json("image", "list") == []
    refused(
        lambda: site.server.pxed("job", "retry", str(job)), f"Job {job} restores golden, and there is no such image"
    )


def test_image_that_was_deleted_while_no_server_ran_fails_the_job_at_the_check(site: Site) -> None:
    job = site.job()
    site.server.stop()
    site.server.pxed("image", "rm", "golden")
    site.server.start()
    status, script = site.http(CHECK)
    assert status == 200
    assert f"The image golden of job {job} is gone." in script
    assert "sanboot" in script and "pxed.token=" not in script
    shown: Any = site.server.json("job", "show", str(job))
    assert (shown["job"]["state"], shown["job"]["step"]) == ("failed", "boot")
    assert shown["job"]["reason"] == f"The image golden of job {job} is gone."


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_server_that_dropped_to_a_user_changes_what_root_imported(elsewhere: bool) -> None:
    """Root imports with its umask of 077, before the server's first start and beside it."""
    with ExitStack() as stack:
        base = Path(stack.enter_context(TemporaryDirectory(dir="/tmp")))  # pytest's own is not for other users
        base.chmod(0o755)
        environment = base / "environment"
        environment.mkdir(mode=0o700)
        for name in ("vmlinuz", "initramfs.cpio.zst"):
            (environment / name).write_bytes(name.encode() * 1000)
            (environment / name).chmod(0o600)
        segment = stack.enter_context(Segment())
        extra = f'[images]\ndir = "{base}/images"\n' if elsewhere else ""
        server = Server(segment.host("pxed", "10.78.0.1/24"), base, "10.78.0.1", environment, extra)
        stack.callback(server.close)
        text = server.config.read_text()
        server.config.write_text(text.replace("[server]\n", '[server]\nuser = "www-data"\n'))
        stack.callback(umask, umask(0o077))
        images = base / "images" if elsewhere else base / "state/images"
        disk = base / "disk.raw"
        for number, name in enumerate(("before", "beside")):
            disk.write_bytes(bytes([number + 1]) * MIB)
            server.pxed("image", "import", disk, "--name", name, "--format", "raw")
            if name == "before":
                server.start()
        wanted = getpwnam("www-data").pw_uid
        assert {path: path.stat().st_uid for path in (images, *images.rglob("*")) if path.stat().st_uid != wanted} == {}
        site = Site(server)
        server.pxed("machine", "add", "--mac", MAC, "--name", "pc-1")
        job = site.job(image="beside")
        assert site.http("/pxed/environment/vmlinuz")[0] == 200
        _, answer = site.claim(site.token())
        for part in ("manifest", "layout", "data"):
            assert site.http(f"/pxed/image/{answer['image']}/{part}", run=answer["run"])[0] == 200
        assert site.finish(answer["run"])[0] == 200
        assert site.state(job) == "succeeded"
        for name in ("before", "beside"):
            server.pxed("image", "rm", name)
        assert server.json("image", "list") == []
        assert list((images / "packs").iterdir()) == []  # the space is given back


def test_cancelled_job_stops_its_agent(site: Site) -> None:
    job = site.job()
    _, answer = site.claim(site.token())
    site.server.pxed("job", "cancel", str(job))
    status, said = site.report(answer["run"], "restore", 10.0)
    assert status == 200
    assert "cancelled" in said["stop"]


def test_kill_nine_in_the_middle_of_a_restore(site: Site) -> None:
    """The server comes back with the claimed job: the same run goes on and ends it."""
    job = site.job()
    _, answer = site.claim(site.token())
    site.report(answer["run"], "restore", 30.0)
    site.server.kill()
    site.server.start()
    assert site.state(job) == "running"
    assert site.report(answer["run"], "restore", 60.0)[0] == 200
    assert site.http(f"/pxed/image/{answer['image']}/data", run=answer["run"])[0] == 200
    assert site.finish(answer["run"])[0] == 200
    assert site.state(job) == "succeeded"


def test_sigterm_ends_cleanly_and_the_work_is_there_afterwards(site: Site) -> None:
    job = site.job()
    assert site.server.stop() == 0
    assert not site.server.socket.exists()
    site.server.start()
    assert site.state(job) == "pending"
    assert site.token()


def test_sighup_reloads_and_drops_no_transfer(site: Site) -> None:
    big = site.server.directory / "tftp/big.bin"
    big.write_bytes(b"x" * (8 * MIB))
    host = site.server.host
    slow = subprocess.Popen(
        ["nsenter", "-t", str(host.pid), "-n", "curl", "-s", "--limit-rate", "4M", "http://10.78.0.1/big.bin"],
        stdout=subprocess.PIPE,
    )
    assert slow.stdout is not None
    received = len(slow.stdout.read(MIB))  # it is under way
    config = site.server.config.read_text()
    site.server.config.write_text(config + '[transaction]\nunknown_machines = "hold"\n')
    kill(site.server.pid, signal.SIGHUP)
    unknown = CHECK.replace("02-01", "02-99").replace("0201", "0299")
    while "asking again" not in site.http(unknown)[1]:  # the reload is a moment away
        pass
    received += len(slow.stdout.read())
    assert slow.wait() == 0
    slow.stdout.close()
    assert received == 8 * MIB

    site.server.config.write_text(config + '[transaction]\nunknown_machine = "hold"\n')
    kill(site.server.pid, signal.SIGHUP)
    while "unknown_machines" not in site.server.tail(5):  # the mistake, with the nearest key, is in the log
        pass
    assert "asking again" in site.http(unknown)[1]  # and the old configuration stays


def test_a_reload_keeps_what_needs_a_restart_and_says_so_each_time(site: Site) -> None:
    new_root = site.server.directory / "new-root"
    new_root.mkdir()
    (new_root / "only-new").write_text("new")
    text = site.server.config.read_text().replace(f'root = "{site.server.directory}/tftp"', f'root = "{new_root}"')
    site.server.config.write_text(text + "[http]\nport = 8080\n")
    for _ in range(2):
        done = Client(str(site.server.socket)).post("/reload", {}, Reloaded)
        assert done.restart == ("http.port",)
    assert site.http("/only-new") == (200, "new")
    assert "http://10.78.0.1/pxed/check" in site.http("/pxed/boot.ipxe")[1]  # where pxed listens, not where it will
    assert Client(str(site.server.socket)).post("/reload", {}, Reloaded).changed == ("http.port",)


def test_a_missing_tftp_root_is_told_at_the_start_and_in_the_status(site: Site) -> None:
    root = site.server.directory / "tftp"
    root.rmdir()
    sentence = f"tftp.root {root} does not exist."
    assert sentence in site.server.json("status")["warnings"]  # type: ignore[index]
    site.server.stop()
    site.server.start()
    assert sentence in site.server.log.read_text()


def serves_all(site: Site) -> None:
    """What machines, agents and operators do, all through its end; everything here is logged."""
    job = site.job()
    assert site.http("/nothing")[0] == 404
    status, answer = site.claim(site.token())
    assert status == 200, answer
    assert site.report(answer["run"], "restore", 30.0) == (200, {"stop": ""})
    assert site.finish(answer["run"]) == (200, {"then": "reboot"})
    assert site.state(job) == "succeeded"


def test_log_that_cannot_be_written_stops_nothing(site: Site) -> None:
    site.server.stop()
    site.server.log = Path("/dev/full")
    site.server.start()
    serves_all(site)
    assert site.server.stop() == 0


def test_nobody_reads_what_the_server_says(site: Site) -> None:
    """stdout and stderr are a pipe whose reader has gone before the server is ready."""
    site.server.stop()
    reader, writer = os.pipe()
    process = spawn(
        [PXED, "--config", site.server.config, "serve"], netns_pid=site.server.host.pid, stdin=subprocess.DEVNULL,
        stdout=writer, stderr=writer,
    )  # fmt: skip
    try:
        os.close(writer)
        os.close(reader)
        inside = ["nsenter", "-t", str(site.server.host.pid), "-n"]
        ready = ["curl", "-s", "--retry", "60", "--retry-delay", "1", "--retry-connrefused", f"http://10.78.0.1{CHECK}"]
        subprocess.run([*inside, *ready], check=True, stdout=subprocess.DEVNULL)
        serves_all(site)
    finally:
        status = stop(process)
    assert status == 0


def test_a_wrong_configuration_is_told_with_file_line_and_nearest_key(tmp_path: Path) -> None:
    config = tmp_path / "pxed.toml"
    config.write_text('[server]\nadress = "10.78.0.1"\n[tftp]\nroot = "/srv/tftp"\n')
    done = subprocess.run([PXED, "--config", config, "serve"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{config}:2" in done.stderr
    assert "server.address" in done.stderr
    assert "Traceback" not in done.stderr


def test_ports_that_are_taken_are_named_with_their_holder(site: Site) -> None:
    config = site.server.directory / "second.toml"
    text = site.server.config.read_text().replace("pxed.sock", "second.sock").replace("/state", "/second-state")
    config.write_text(text)
    done = subprocess.run(
        ["nsenter", "-t", str(site.server.host.pid), "-n", PXED, "--config", config, "serve"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "port 4011" in done.stderr
    assert str(site.server.pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_two_servers_on_one_state_directory_are_refused(site: Site) -> None:
    done = subprocess.run(
        ["nsenter", "-t", str(site.server.host.pid), "-n", PXED, "--config", site.server.config, "serve"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert site.state(site.job()) == "pending"  # the first one is well


# A TFTP client that takes some blocks and then waits until its standard input ends.
HOLDER = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(60)
client.sendto(b"\\0\\1big.bin\\0octet\\0blksize\\0001024\\0", ("10.78.0.1", 69))
for block in range(4):  # the OACK, then DATA
    client.recv(2000)
    client.sendto(b"\\0\\4\\0" + bytes([block]), ("10.78.0.1", 69))
client.recv(2000)
print("held", flush=True)
sys.stdin.read()
"""


def test_metrics_and_top_during_a_transfer_and_after_a_job(site: Site) -> None:
    inside = ["nsenter", "-t", str(site.server.host.pid), "-n"]
    site.server.stop()
    site.server.config.write_text(site.server.config.read_text() + '[metrics]\nlisten = "10.78.0.1:9469"\n')
    (site.server.directory / "tftp/big.bin").write_bytes(b"x" * (8 * MIB))
    site.server.start()
    serves_all(site)
    command = [*inside, sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout is not None and held.stdout.readline() == b"held\n"
        shown: Any = json.loads(site.server.pxed("top", "--once", "--interval", "0.1", "--json"))
        scrape = [*inside, "curl", "-s", "http://10.78.0.1:9469/metrics"]
        scraped = subprocess.run(scrape, capture_output=True, check=True).stdout
    (row,) = shown["transfers"]
    assert (row["transfer"]["name"], row["transfer"]["size"]) == ("big.bin", 8 * MIB)
    assert (row["transfer"]["bytes"], row["transfer"]["blksize"]) == (3 * 1024, 1024)
    assert shown["tftp_running"] == 1
    assert shown["places"] == {"checked": 1}
    ask = ["curl", "-s", "--unix-socket", site.server.socket, "http://pxed/metrics"]
    asked = subprocess.run(ask, capture_output=True, check=True).stdout
    for text in (scraped, asked):
        found = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }
        assert found["pxed_tftp_requests_total",] == 1
        assert found["pxed_jobs", "succeeded"] == 1
        assert found["pxed_machines", "yes"] == 1
        assert found["pxed_requests_total", "check", "http"] == 1
        assert found["pxed_requests_total", "agent", "http"] == 3
        for phase in ("check-to-claim", "imaging", "job"):
            assert found["pxed_phase_seconds_count", phase] == 1
        assert found["process_cpu_seconds_total",] > 0
