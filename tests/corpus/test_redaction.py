"""Redaction against a labeled set of our own, and what holds of any text.

A line of redaction_lines.jsonl is a line of code, or its parts where a whole
would look like some vendor's key to a scanner. All secrets in it are made up.
It holds lines that no rule finds, and those that rules were written for: the
rates say what to expect of such lines, not of any corpus.
"""

import ast
import json
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinystarcoder.corpus.redaction import (
    KINDS,
    NAME_SERVERS,
    PRIVATE_IPV4,
    PRIVATE_IPV6,
    find,
    redact,
)

ROWS = [
    json.loads(row)
    for row in (Path(__file__).parent / "redaction_lines.jsonl").read_text("utf-8").splitlines()
]
LINES = ["".join(row["line"]) for row in ROWS]
TEXTS = st.lists(st.sampled_from(LINES), max_size=12).map("\n".join)


def found_in(text: str) -> Counter[tuple[str, str]]:
    return Counter((finding.kind, text[finding.start : finding.end]) for finding in find(text))


def labels(row) -> Counter[tuple[str, str]]:
    return Counter((kind, value) for kind, values in row["found"].items() for value in values)


def test_the_set_is_large_enough_for_a_rate():
    assert len(ROWS) >= 200
    assert len(set(LINES)) == len(LINES)
    for kind in KINDS:
        assert sum(kind in row["found"] for row in ROWS) >= 20, kind
    assert sum(not row["found"] for row in ROWS) >= 100


@pytest.mark.parametrize("kind", KINDS)
def test_precision_and_recall(kind):
    """Whole values, each kind by itself, over all lines: those of the other kinds are traps."""
    said, true, missed, wrong = 0, 0, [], []
    for line, row in zip(LINES, ROWS, strict=True):
        found = Counter({k: n for k, n in found_in(line).items() if k[0] == kind})
        expected = Counter({k: n for k, n in labels(row).items() if k[0] == kind})
        said += found.total()
        true += expected.total()
        missed += (expected - found).elements()
        wrong += (found - expected).elements()
    precision, recall = 1 - len(wrong) / said, 1 - len(missed) / true
    # Shown by: pytest tests/corpus/test_redaction.py -k precision -rP
    print(f"{kind}: {true} labeled, {said} found, precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.9, wrong
    assert recall >= 0.9, missed


@given(TEXTS)
def test_redacting_twice_changes_nothing_more(text):
    once, counts = redact(text)
    assert redact(once) == (once, {})
    assert (once == text) == (not counts)


@given(TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@example("x@y.com", "")
@example("", "@a.de\n2a00:1450:4001:82b::200e")
def test_findings_are_apart_and_all_else_stays(text, noise):
    text = f"{noise}\n{text}\n{noise}"
    findings = find(text)
    rest, done = [], 0
    for finding in findings:
        assert done <= finding.start < finding.end <= len(text)
        rest.append(text[done : finding.start])
        done = finding.end
    redacted, counts = redact(text)
    assert counts == Counter(finding.kind for finding in findings)
    for part in [*rest, text[done:]]:
        assert part in redacted
    assert redacted.count("\n") == text.count("\n")


@given(st.lists(st.sampled_from(LINES), max_size=6))
def test_a_module_still_parses(lines):
    """What is found stands in a comment or a string, and its replacement stays inside."""
    text = "".join(f"# {line}\nx = {line!r}\n" for line in lines)
    ast.parse(redact(text)[0])


@given(st.ip_addresses())
def test_only_public_addresses_go_and_equal_ones_become_equal(address):
    text = f"host = '{address}'\nhost2 = '{address}'"
    redacted, counts = redact(text)
    if counts:
        assert address.is_global
        replaced = {line.split("'")[1] for line in redacted.splitlines()}
        assert len(replaced) == 1
        assert replaced <= set(PRIVATE_IPV4 if address.version == 4 else PRIVATE_IPV6)
    elif address.version == 4 and address.is_global and not address.is_multicast:
        assert str(address) in NAME_SERVERS


def test_replacements_are_private():
    assert len(PRIVATE_IPV4) == len(PRIVATE_IPV6) == 5
    assert all(ip_address(address).is_private for address in PRIVATE_IPV4 + PRIVATE_IPV6)


def test_the_body_of_a_private_key_goes_and_its_lines_stay():
    body = "MIIEpAIBAAKCAQEA7bq3W1zYkQ0v\nq8Xc5ZrT9mNpLkJhGfDsAqWeRtYu\n"
    for text in (
        f'K = """-----BEGIN RSA {"PRIVATE"} KEY-----\n{body}-----END RSA {"PRIVATE"} KEY-----"""\n',
        f'KEY = ("-----BEGIN {"PRIVATE"} KEY-----\\n"\n'
        + "".join(f'    "{line}\\n"\n' for line in body.split())
        + f'    "-----END {"PRIVATE"} KEY-----")\n',
    ):
        redacted, counts = redact(text)
        assert counts == {"KEY": 2}
        assert not any(line in redacted for line in body.split())
        assert redacted.count("\n") == text.count("\n")
        ast.parse(redacted)


def test_a_picture_in_lines_of_base64_is_no_list_of_keys():
    chunks = [
        "uH2VN2udFWr1QQXvEV4nicxxlCv19FsNoOtv0QiAUVRsLq6ikqlAtel2Jvyc",
        "VVYVlWThw4MDo2NiYkMlkisPDwx9v9D4Rdotc0zSj9x7dO5RMJgEA4XAYkiR",
        "gYR5BSFhMWE7YSKggHCQ0EdoJNwkDhFHCJyKTqEu0JroR2cQYYjIxh1hILCP",
    ]
    assert find("".join(f'    "{chunk}"\n' for chunk in chunks)) == []
    for chunk in chunks:
        assert [f.kind for f in find(f"x = [\n    '{chunk}',\n]\n")] == ["KEY"]


@pytest.mark.parametrize("before", ["", "é", "İ", "# Ꞌ🙂"])
def test_letters_beyond_ascii_hide_nothing(before):
    text = f"{before}\nADMIN_PASSWORD = 'Adm1n#2024'\n"
    assert redact(text)[0] == f"{before}\nADMIN_PASSWORD = '<PASSWORD>'\n"


def test_the_same_secret_twice_on_a_line():
    line = "check('bob', password='x7!yz', again=1, password2='x7!yz')"
    assert redact(line)[0].count("<PASSWORD>") == 2
