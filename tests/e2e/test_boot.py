"""Real firmware in QEMU, from power-on to the machine's own system."""

import struct
import subprocess

import pytest

from support.site import SOON, Site

# Slow enough that a restore can be interrupted on purpose, quick enough to wait for.
SLOW = "60mbit"


def test_bios_machine_is_imaged_then_left_alone(site: Site) -> None:
    """Blank disk, SeaBIOS with its iPXE ROM: imaged once; the next boots find no work and download nothing."""
    watch = site.watch()
    machine = site.machine("bios")
    job = site.job(machine)
    machine.power_on()
    watch.state(job, "succeeded")
    site.own_system(machine)
    kinds = [kind for kind, _ in site.timeline(machine)]
    wanted = ["offer", "boot-program", "check", "environment", "claim", "restore", "verified", "rebooted"]
    assert [kind for kind in dict.fromkeys(kinds) if kind in wanted] == wanted
    machine.power_off()
    assert site.same(machine)

    fetched = site.server.counters()
    since = machine.mark()
    machine.power_on()
    site.own_system(machine, since)
    after = site.server.counters()
    assert after["http.requests"] == fetched["http.requests"]
    assert after["dhcp.drop:no-work"] > fetched.get("dhcp.drop:no-work", 0)
    assert site.job_now(job)["attempts"] == 1


@pytest.mark.pxed_config("[mtftp]\nenabled = true\narchitectures = [0, 7]\n")
def test_uefi_machine_with_a_larger_nvme_disk_is_imaged(site: Site) -> None:
    """OVMF's own PXE: boot program by TFTP, 4011, iPXE; the backup GPT moves to the end of the larger disk.

    That it is told of MTFTP, which it does not know, does not disturb it.
    """
    watch = site.watch()
    machine = site.machine("uefi", disk_mib=512, disk_bus="nvme")
    job = site.job(machine)
    machine.power_on()
    watch.state(job, "succeeded")
    site.own_system(machine)
    machine.power_off()
    texts = [text for kind, text in site.timeline(machine) if kind == "boot-program"]
    assert any("snponly.efi" in text and "TFTP" in text for text in texts), texts
    checked = subprocess.run(["sgdisk", "-v", machine.hardware.disk], capture_output=True, text=True)
    assert "No problems found" in checked.stdout
    with machine.hardware.disk.open("rb") as disk:
        disk.seek(512 + 32)
        (backup,) = struct.unpack("<Q", disk.read(8))
    assert backup == (512 << 20) // 512 - 1  # the last sector of this disk, not of the image's


def test_unknown_machine_boots_its_own_disk_and_is_listed_as_seen(site: Site) -> None:
    machine = site.machine("bios", content=site.image)
    machine.power_on()
    site.own_system(machine)
    (seen,) = site.json("machine", "list")
    assert seen["macs"] == [machine.hardware.mac]
    assert seen["known"] is False
    assert site.server.counters()["http.requests"] == 0


@pytest.mark.pxed_config('[transaction]\nno_work = "local"\n')
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_no_work_local_boots_the_disk_at_once(site: Site, firmware: str) -> None:
    machine = site.machine(firmware, content=site.image)
    site.server.pxed("machine", "add", "--mac", machine.hardware.mac)
    machine.power_on()
    site.own_system(machine)
    assert not any(kind == "environment" for kind, _ in site.timeline(machine))
    if firmware == "uefi":
        # One DISCOVER of each of its two boot options: it would have asked four times before giving up by itself.
        assert [text for kind, text in site.timeline(machine) if kind == "no-work"] == [
            f"UEFI x64 {option}: told to boot its local disk (No job waits for this machine.)"
            for option in ("PXE", "HTTP")
        ]
        counters = site.server.counters()
        assert counters["dhcp.answered:offer"] == 2
        assert "dhcp.drop:no-work" not in counters
        assert counters["tftp.requests"] == counters["http.requests"] == counters["http.connections"] == 0


@pytest.mark.pxed_config('[transaction]\nunknown_machines = "hold"\n')
def test_held_machine_gets_the_job_that_comes_while_it_waits(site: Site) -> None:
    watch = site.watch()
    machine = site.machine("bios")
    machine.power_on()
    watch.event("check", "wait")
    job = site.job(machine)
    watch.state(job, "succeeded")
    site.own_system(machine)
    machine.power_off()
    assert site.same(machine)


def test_target_too_small_fails_before_a_byte_is_written(site: Site) -> None:
    watch = site.watch()
    machine = site.machine("bios", disk_mib=128)
    job = site.job(machine)
    machine.power_on()
    failed = watch.state(job, "failed", "succeeded")
    assert (failed.state, failed.step) == ("failed", "target")
    assert "smaller" in failed.reason or "too small" in failed.reason
    machine.power_off()
    with machine.hardware.disk.open("rb") as disk:
        while block := disk.read(1 << 20):
            assert not any(block)


@pytest.mark.pxed_config('[mtftp]\nenabled = true\nipxe = "always"\n')
def test_corrupted_chunk_fails_the_job_and_names_it(site: Site) -> None:
    """The kernel is loaded by MTFTP here."""
    watch = site.watch()
    site.corrupt_chunk(position=0.5)
    machine = site.machine("bios")
    job = site.job(machine)
    machine.power_on()
    failed = watch.state(job, "failed", "succeeded")
    assert (failed.state, failed.step) == ("failed", "restore")
    assert "chunk" in failed.reason
    assert site.server.counters()["tftp.mtftp_outcome.ok"] == 1
    machine.power_off()
    with machine.hardware.disk.open("rb") as disk:  # nothing bootable half-way
        first = disk.read(1 << 20)
    assert first[510:512] != b"\x55\xaa"
    assert b"EFI PART" not in first


@pytest.mark.pxed_config("[jobs]\nsilence = 15\n")
def test_machine_powered_off_in_the_middle_fails_by_deadline_and_is_retried(site: Site) -> None:
    watch = site.watch()
    machine = site.machine("bios")
    job = site.job(machine)
    site.shape(machine, SLOW)
    machine.power_on()
    watch.percent(job, 20)
    machine.power_off()
    failed = watch.state(job, "failed", "succeeded")
    assert (failed.state, failed.step) == ("failed", "restore")
    site.shape(machine, None)
    site.server.pxed("job", "retry", str(job))
    since = machine.mark()
    machine.power_on()
    watch.state(job, "succeeded")
    site.own_system(machine, since)
    machine.power_off()
    assert site.same(machine)
    assert [kind for kind, _ in site.timeline(machine)].count("claim") == 2


def test_restore_goes_on_when_the_server_is_killed_and_started_again(site: Site) -> None:
    watch = site.watch()
    machine = site.machine("bios")
    job = site.job(machine)
    site.shape(machine, SLOW)
    machine.power_on()
    watch.percent(job, 20)
    site.server.kill()
    site.server.start()
    watch = site.watch()
    site.shape(machine, None)
    if site.job_now(job)["state"] != "succeeded":
        watch.state(job, "succeeded", timeout=2 * SOON)
    site.own_system(machine)
    machine.power_off()
    assert site.same(machine)
    assert site.job_now(job)["attempts"] == 1
