"""Any text at all gives a Config or a ConfigError that names the file; nothing else ever leaves the parser."""

import json

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pxed.config import Config, parse
from pxed.errors import ConfigError

SECTIONS = {
    "server": ["address", "state_dir", "socket", "user"],
    "tftp": ["root", "port"],
    "dhcp": ["enabled", "boot_programs"],
    "mtftp": ["enabled", "groups", "ttl", "machines", "files"],
    "cast": ["enabled", "rate", "rates", "hours", "start", "groups"],
    "jobs": ["silence"],
    "log": ["level"],
    "environment": ["append", "console"],
}

# A busy machine is no mistake of the code: no deadline, no complaint about slow drawing.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

toml_values = st.recursive(
    st.one_of(
        st.booleans().map(lambda b: "true" if b else "false"),
        st.integers().map(str),
        st.floats().map(repr),
        st.text(max_size=20).map(json.dumps).filter(lambda s: "\\ud" not in s and "\x7f" not in s),
        st.sampled_from(['"10.0.0.1"', '"/srv"', '"debug"', "1979-05-27", "07:32:00", '"""a\nb"""', "{ 7 = 'a' }"]),
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n".join(items) + "]"),
    max_leaves=4,
)


@st.composite
def toml_files(draw: st.DrawFn) -> str:
    lines = []
    for section in draw(st.lists(st.sampled_from([*SECTIONS, "dchp", "a.b"]), unique=True)):
        lines.append(f"[{section}]")
        names = [*SECTIONS.get(section, []), "port", '"q k"']
        for key in draw(st.lists(st.sampled_from(names), unique=True)):
            lines.append(f"{key} = {draw(toml_values)}")
    return "\n".join(lines)


def check(text: str) -> None:
    try:
        assert isinstance(parse(text, "f.toml"), Config)
    except ConfigError as error:
        assert all(line.startswith("f.toml:") for line in str(error).splitlines())


@patient
@given(toml_files())
def test_any_toml_gives_a_config_or_an_error(text: str) -> None:
    check(text)


@patient
@given(st.text())
@example('[server]\naddress = "\\u0085\\u2028"')
@example('"\\u0085" = 1')
@example("[" * 100_000)
@example("x = " + "[" * 100_000)
@example("x = " + "9" * 5000)
@example("a.b.c = {}\n[[a.d]]\n[[a.d]]\n")
@example('"" = 1')
@example("x = '''\r\n'''\r\n[server]\r\naddress = 1")
def test_any_text_gives_a_config_or_an_error(text: str) -> None:
    check(text)
