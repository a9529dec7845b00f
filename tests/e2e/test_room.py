"""A room of machines imaged by one multicast session."""

import pytest

from support.site import BOOT, Site, Watch

MACHINES = 4
# Slow enough for four emulated machines on two cores, and for one to be killed half-way.
RATE = "32Mbit"
MOST = 1.2  # times the image's stored bytes that the wire may carry for the whole room


@pytest.mark.pxed_config(f'[cast]\nrate = "{RATE}"\nstart = "{MACHINES} machines"\n')
def test_a_room_costs_the_wire_one_image_and_whoever_loses_power_goes_on_where_it_was(site: Site) -> None:
    watch = site.watch()
    (image,) = site.json("image", "list")
    machines = [site.machine("bios") for _ in range(MACHINES)]
    jobs = [site.job(machine) for machine in machines]
    for machine in machines:
        machine.power_on()
    joined(watch, MACHINES)
    before = site.segment.sent(site.server.host)  # all of them have their environment: what follows is the image

    last, job = machines[-1], jobs[-1]
    watch.percent(job, half(image["chunks"], image["stored_chunks"]))
    last.power_off()
    for other, done in zip(machines[:-1], jobs[:-1], strict=True):
        watch.state(done, "succeeded", "failed")
        other.power_off()  # as soon as it may be: the processors are few
    carried = site.segment.sent(site.server.host) - before
    assert carried <= MOST * image["data_size"]

    last.power_on()
    joined(watch, MACHINES + 1)  # a session of its own, or still the first one, which then goes on by itself
    (*_, session) = site.json("session", "list")
    if session["state"] == "waiting":
        site.server.pxed("session", "start", session["id"])
    watch.state(job, "succeeded", "failed")
    last.power_off()
    assert [site.job_now(one)["state"] for one in jobs] == ["succeeded"] * MACHINES
    assert [site.same(machine) for machine in machines] == [True] * MACHINES
    assert site.job_now(job)["attempts"] == 2
    assert any("An earlier restore was interrupted" in text for _kind, text in site.timeline(last))
    for machine in machines:
        assert any("from the multicast group" in text for _kind, text in site.timeline(machine))


def joined(watch: Watch, count: int) -> None:
    """Wait until machines have joined a session so many times."""
    watch.until(lambda seen: sum(e.kind == "cast" and e.text.startswith("Joined") for e in seen.events) >= count, BOOT)


def half(chunks: int, stored: int) -> float:
    """The percentage of a job that has half of what travels: zeros are laid down before."""
    return 100.0 * (1.0 - stored / chunks / 2)
