import pytest

from pxed.agent.failure import AgentFailure
from pxed.agent.options import Options, boot_mac, parse

LINE = (
    "BOOT_IMAGE=vmlinuz initrd=x pxed.server=http://10.78.0.1 pxed.token=T0 BOOTIF=01-52-54-00-AB-cd-ef console=ttyS0"
)


def test_the_words_of_the_boot_script() -> None:
    assert parse(LINE + "\n") == Options("http://10.78.0.1", "T0", "52:54:00:ab:cd:ef")
    assert parse(LINE + " pxed.debug=1").debug
    assert parse(LINE + " pxed.server=http://10.78.0.2:8080/").server == "http://10.78.0.2:8080"


def test_a_quote_without_its_partner_is_not_ours_to_judge() -> None:
    assert parse(LINE + ' dyndbg="file').token == "T0"


@pytest.mark.parametrize("line", ["", "pxed.token=T", "pxed.server=http://a", "pxed.server=10.0.0.1 pxed.token=T"])
def test_what_is_missing_is_said(line: str) -> None:
    with pytest.raises(AgentFailure, match="command line"):
        parse(line)


@pytest.mark.parametrize(
    "text", ["", "52:54:00:ab:cd:ef", "20-52-54-00-ab-cd-ef", "01-52-54-00-ab-cd", "01-5-54-00-ab-cd-ef"]
)
def test_other_forms_are_no_boot_interface(text: str) -> None:
    assert boot_mac(text) == ""
