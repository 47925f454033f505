"""Personal data and secrets: found, and replaced as BigCode replaced them.

    EMAIL     an address                                      -> <EMAIL>
    KEY       a token, an API key, a private key's body       -> <KEY>
    PASSWORD  given to a name that says so, or in a URL       -> <PASSWORD>
    NAME      two words or more in an author line             -> <NAME>
    IP        a public address                                -> one of 5 private ones a family

Private and reserved addresses and well-known name servers stay. Equal
addresses become equal ones. Lines and all that is not replaced stay as they
are, so line numbers hold, and redacting twice changes nothing more.

Keys are what detect-secrets finds, on candidate lines alone: on all lines it
would take longer than the rest of the pipeline.

What it gives up: a password or a key that reads like a word, which no rule
tells from a field's name; names outside author lines, and single words there;
hex digits on a line that says nothing of a key, for they are hashes as a rule.
Placeholders are text: no special token is made of them.
"""

import re
import string
import zlib
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from operator import attrgetter

from ..errors import MissingExtraError

try:
    from detect_secrets.filters.heuristic import (
        is_potential_uuid,
        is_sequential_string,
        is_templated_secret,
    )
    from detect_secrets.plugins.aws import AWSKeyDetector
    from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.plugins.discord import DiscordBotTokenDetector
    from detect_secrets.plugins.github_token import GitHubTokenDetector
    from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
    from detect_secrets.plugins.high_entropy_strings import (
        Base64HighEntropyString,
        HexHighEntropyString,
    )
    from detect_secrets.plugins.jwt import JwtTokenDetector
    from detect_secrets.plugins.mailchimp import MailchimpDetector
    from detect_secrets.plugins.openai import OpenAIDetector
    from detect_secrets.plugins.pypi_token import PypiTokenDetector
    from detect_secrets.plugins.sendgrid import SendGridDetector
    from detect_secrets.plugins.slack import SlackDetector
    from detect_secrets.plugins.square_oauth import SquareOAuthDetector
    from detect_secrets.plugins.stripe import StripeDetector
    from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
    from detect_secrets.plugins.twilio import TwilioKeyDetector
except ModuleNotFoundError as error:
    raise MissingExtraError("redaction", "corpus") from error

KINDS = ("EMAIL", "KEY", "PASSWORD", "NAME", "IP")

# BigCode's: pii_redaction of the bigcode-dataset repository.
PRIVATE_IPV4 = ("172.16.31.10", "172.16.58.3", "172.16.17.32", "192.168.127.12", "192.168.3.11")
PRIVATE_IPV6 = (
    "fd00:c2b6:b24b:be67:2827:688d:e6a1:6a3b",
    "fd00:a516:7c1b:17cd:6d81:2137:bd2a:2c5b",
    "fc00:e968:6179::de52:7100",
    "fc00:db20:35b:7399::5",
    "fdf8:f53e:61e4::18",
)
NAME_SERVERS = frozenset(
    {
        *("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "76.76.19.19", "76.223.122.150"),
        *("9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220", "8.26.56.26"),
        *("8.20.247.20", "94.140.14.14", "94.140.15.15"),
        *("2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111"),
        *("2606:4700:4700::1001", "2620:fe::fe"),
    }
)
# Longer runs are encoded data rather than a key, unless the line says key.
MAX_UNNAMED_KEY = 100
MIN_UNNAMED_PIECE = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """``text[start:end]`` is of this kind, one of KINDS."""

    kind: str
    start: int
    end: int


def redact(text: str) -> tuple[str, dict[str, int]]:
    """The text with every finding replaced, and how many of each kind there were."""
    parts: list[str] = []
    counts: dict[str, int] = {}
    done = 0
    for finding in find(text):
        value = text[finding.start : finding.end]
        parts += [text[done : finding.start], _replacement(finding.kind, value)]
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        done = finding.end
    return "".join([*parts, text[done:]]), counts


def find(text: str) -> list[Finding]:
    """All findings in order, none overlapping: a secret comes before an address inside it."""
    found = [*_secrets(text), *_private_keys(text), *_emails(text), *_ips(text), *_names(text)]
    secret = {"PASSWORD": 0, "KEY": 1}
    found.sort(key=lambda f: (secret.get(f.kind, 2), f.start - f.end, f.start))
    kept: list[Finding] = []
    for finding in found:
        place = bisect(kept, finding.start, key=attrgetter("start"))
        beside = kept[max(0, place - 1) : place + 1]
        if all(finding.end <= other.start or finding.start >= other.end for other in beside):
            kept.insert(place, finding)
    return kept


def _replacement(kind: str, value: str) -> str:
    if kind != "IP":
        return f"<{kind}>"
    choices = PRIVATE_IPV6 if ":" in value else PRIVATE_IPV4
    return choices[zlib.crc32(value.encode()) % len(choices)]


# E-mail addresses. Only top-level domains that people's addresses have, so that neither
# a product of matrices (x@model.weights) nor a file (logo@2x.png) is one.
_DOMAIN = re.compile(
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?\.)+"
    r"(?:com|org|net|edu|gov|mil|int|info|biz|name|pro|dev|app|tech|cloud|online|email|science"
    r"|museum|[a-z]{2})(?![\w@]|\.\w|\()",
)
_LOCAL_PART = re.compile(r"[A-Za-z0-9][\w.+%-]{0,63}\Z", re.ASCII)
_NOT_PEOPLE = {"git", "hg", "svn"}


def _emails(text: str) -> Iterator[Finding]:
    for domain in _DOMAIN.finditer(text):
        before = text[max(0, domain.start() - 65) : domain.start()]
        local = _LOCAL_PART.search(before)
        # user:password@host in a URL is no address, nor is an ssh remote.
        if local and local[0] not in _NOT_PEOPLE and not re.search(r"://[^\s/]*\Z", before):
            yield Finding("EMAIL", domain.start() - len(local[0]), domain.end())


# IP addresses. A number that a version, a requirement or an object identifier may be
# is none; nor can a public IPv6 address begin with anything but 2 or 3.
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}(?::{1,2}[0-9a-fA-F]{1,4}){2,7}(?![\w:])")
_VERSION_BEFORE = re.compile(
    r"(?:[=<>~!^]=|[<>~^]|\b\w+/|[-_]|\bv|\bver(?:sion)?s?\b[^\n]*|\brelease[ds]?\b[^\n]*"
    r"|\bbuild\b[^\n]*|\boid\b[^\n]*|_version__[^\n]*|_version\b[^\n]*|\b(?:sub)?sections?\b[^\n]*"
    r"|\bspec(?:ification)?s?\b[^\n]*|\bclause\b[^\n]*|\u00a7)\s*\Z",
    re.IGNORECASE,
)
_ADDRESS_NEAR = re.compile(r"dns|server|host|addr|(?<![a-z])ips?(?![a-z])", re.IGNORECASE)


def _ips(text: str) -> Iterator[Finding]:
    for match in _IPV4.finditer(text):
        if _is_public(IPv4Address, match[0]) and not _is_version(text, match):
            yield Finding("IP", *match.span())
    for match in _IPV6.finditer(text):
        if _is_public(IPv6Address, match[0]):
            yield Finding("IP", *match.span())


def _is_public(family: type[IPv4Address] | type[IPv6Address], value: str) -> bool:
    try:
        address = family(value)
    except AddressValueError:
        return False
    return address.is_global and not address.is_multicast and str(address) not in NAME_SERVERS


def _is_version(text: str, match: re.Match[str]) -> bool:
    line_start = text.rfind("\n", 0, match.start()) + 1
    before = text[max(line_start, match.start() - 80) : match.start()]
    if _VERSION_BEFORE.search(before):
        return True
    # Four single digits: BigCode's rule, a version unless the words around speak of hosts.
    around = before + text[match.end() : match.end() + 40].split("\n")[0]
    first = int(match[0].split(".")[0])
    short = len(match[0]) == 7 or first <= 2
    return short and not _ADDRESS_NEAR.search(around)


# Names.
_AUTHOR_LINE = re.compile(
    r"^[ \t]*(?:[#*%;]+|\.\.)?[ \t]*"
    r"(?:__authors?__[ \t]*(?::[^=\n]*)?=|:(?:module)?authors?:|[@\\]authors?\b:?"
    r"|(?:code)?authors?[ \t]*(?:\(s\))?[ \t]*:)(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_UPPER = r"[^\W\d_a-z]"
_NAME_WORD = rf"(?:{_UPPER}[^\W\d_]*(?:['\u2019-][^\W\d_]+)*\.?)"
_PARTICLE = r"(?:(?:van|von|de|der|den|del|della|da|di|dos|la|le|bin|al|ter|zu)[ \t]+)"
_NAME = re.compile(rf"{_NAME_WORD}(?:[ \t]+{_PARTICLE}{{0,2}}{_NAME_WORD}){{1,4}}")
_ORGANIZATION = re.compile(
    r"\b(?:team|developers?|contributors?|project|foundation|authors?|group|labs?|laboratory"
    r"|software|community|university|institute|corporation|corp|inc|ltd|llc|gmbh|company|core"
    r"|the|organization|systems|technologies|research|center|centre|committee|python|google"
    r"|department|society|see|license|file|various|copyright|et|all|unknown)\b",
    re.IGNORECASE,
)


def _author_lines(text: str) -> Iterator[int]:
    """Where the lines begin that speak of an author: few, and found much faster than all."""
    for at in _places(text.translate(_LOWER), "author"):
        yield text.rfind("\n", 0, at) + 1


def _names(text: str) -> Iterator[Finding]:
    for start in sorted(set(_author_lines(text))):
        line = _AUTHOR_LINE.match(text, start)
        if line is None:
            continue
        for name in _NAME.finditer(text, line.start(1), line.end(1)):
            letters = [word for word in name[0].split() if len(word.strip(".")) > 1]
            if letters and not _ORGANIZATION.search(name[0]):
                end = name.end() - (name[0].endswith(".") and len(name[0].split()[-1]) > 2)
                yield Finding("NAME", name.start(), end)


# Keys and passwords.
_DETECTORS: tuple[RegexBasedDetector, ...] = (
    *(AWSKeyDetector(), AzureStorageKeyDetector(), DiscordBotTokenDetector()),
    *(GitHubTokenDetector(), GitLabTokenDetector(), JwtTokenDetector(), MailchimpDetector()),
    *(OpenAIDetector(), PypiTokenDetector(), SendGridDetector(), SlackDetector()),
    *(SquareOAuthDetector(), StripeDetector(), TelegramBotTokenDetector(), TwilioKeyDetector()),
)
_BASE64 = Base64HighEntropyString()
_HEX = HexHighEntropyString()

_LONG_RUN = re.compile(r"[A-Za-z0-9_+/=-]{16,}")
# In place: str.lower() may change the length.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SECRET_WORD = re.compile(
    r"pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|auth|access|private|client|account"
    r"|service|signing|encryption|license)[_-]?key|credential|\bauth"
)
_CHUNK = re.compile(r"[ \t]*b?(['\"])[A-Za-z0-9+/=_-]{40,}\1[,)\\ \t]*")
# Each match of it holds one of these.
_SECRET_PARTS = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
_QUOTED = re.compile(r"(['\"])((?:(?!\1)[^\\\n])*)\1")
_URL_AUTH = re.compile(r"://[^\s/:@'\"]*:([^\s/@'\"]+)@")
_SAYS_HASH = re.compile(
    r"sha-?\d|sha_|md5|hash|digest|checksum|commit|revision|\brev\b|fingerprint|etag|uuid|guid"
    r"|integrity|blob|alphabet|charset|signature"
)
_WORD_LIKE = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}")
_PASSWORD_NAME = re.compile(
    r"(?:\b|_)(?:[a-z]\w*_)?(?:password|passwd|pwd|passphrase|passcode)\d?['\"]?\]?"
    r"(?:\s*(?::\s*[\w| \[\].]+)?\s*(?:=|==|:|!=)|(?<=['\"]),)\s*[bru]?\Z",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|key|example|placeholder|change|your|dummy"
    r"|redacted|xxx|\*\*|\.\.\.",
    re.IGNORECASE,
)


def _secrets(text: str) -> Iterator[Finding]:
    for start, line in _candidate_lines(text):
        yield from (Finding("PASSWORD", start + a, start + b) for a, b in _passwords(line))
        yield from (Finding("KEY", start + a, start + b) for a, b in _vendor_keys(line))
        # A picture's base64, cut into lines, is no list of keys.
        if not (_CHUNK.fullmatch(line) and _among_chunks(text, start, start + len(line))):
            yield from (Finding("KEY", start + a, start + b) for a, b in _random_keys(line))


def _among_chunks(text: str, start: int, end: int) -> bool:
    """Whether the line before or after one, too, is nothing but a long quoted run."""
    before = text[text.rfind("\n", 0, max(0, start - 1)) + 1 : max(0, start - 1)]
    stop = text.find("\n", end + 1)
    after = text[end + 1 : stop if stop >= 0 else len(text)]
    return bool(_CHUNK.fullmatch(before) or _CHUNK.fullmatch(after))


def _places(text: str, word: str) -> Iterator[int]:
    """Where a word stands: str.find is many times faster than a pattern of many words."""
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def _candidate_lines(text: str) -> Iterator[tuple[int, str]]:
    """Where a line starts, and the line: those that a secret may stand on."""
    starts = set()
    for run in _LONG_RUN.finditer(text):
        if any(map(str.isdigit, run[0])):
            starts.add(text.rfind("\n", 0, run.start()) + 1)
    lowered = text.translate(_LOWER)
    for word in _SECRET_PARTS:
        for at in _places(lowered, word):
            start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
            if start not in starts and _SECRET_WORD.search(
                lowered, start, end if end >= 0 else len(text)
            ):
                starts.add(start)
    if "://" in text:
        for url in _URL_AUTH.finditer(text):
            starts.add(text.rfind("\n", 0, url.start()) + 1)
    for start in sorted(starts):
        end = text.find("\n", start)
        line = text[start : end if end >= 0 else len(text)]
        if len(line) <= 2000:
            yield start, line


def _vendor_keys(line: str) -> Iterator[tuple[int, int]]:
    """Keys whose form alone gives them away."""
    for detector in _DETECTORS:
        for pattern in detector.denylist:
            for match in pattern.finditer(line):
                # Some patterns group the value, some group its prefix.
                inner = match.lastindex is not None and len(match[match.lastindex] or "") > 8
                span = match.span(match.lastindex or 0) if inner else match.span()
                value = line[slice(*span)]
                if isinstance(detector, JwtTokenDetector) and not detector.is_formally_valid(value):
                    continue
                bounded = not (line[span[1] :][:1].isalnum() or line[: span[0]][-1:].isalnum())
                if bounded and len(set(value)) > 7:
                    yield span


def _passwords(line: str) -> Iterator[tuple[int, int]]:
    for url in _URL_AUTH.finditer(line):
        if _could_be_password(url[1]):
            yield url.span(1)
    for match in _QUOTED.finditer(line):
        named = _PASSWORD_NAME.search(line, max(0, match.start() - 80), match.start())
        if named and _could_be_password(match[2]):
            yield match.span(2)


def _could_be_password(value: str) -> bool:
    """A digit or a sign and no blank: a plain word is rather a field's name or a message."""
    if len(value) < 4 or any(map(str.isspace, value)) or is_templated_secret(value):
        return False
    if _PLACEHOLDER.search(value) or re.search(r"[{}<>\[\]]|%\(|%s|^\$|://|^[./~]", value):
        return False
    has_letter = any(map(str.isalpha, value))
    return has_letter and bool(re.search(r"[\d!@#$%^&*?+]", value))


def _random_keys(line: str) -> Iterator[tuple[int, int]]:
    lowered = line.lower()
    named, says_hash = bool(_SECRET_WORD.search(lowered)), bool(_SAYS_HASH.search(lowered))
    for match in _QUOTED.finditer(line):
        if _is_random_key(match[2], named, says_hash):
            yield match.span(2)


def _is_random_key(value: str, named: bool, says_hash: bool) -> bool:
    """Whether a quoted string is random enough, and the line does not explain it otherwise."""
    if len(value) <= 8 or is_potential_uuid(value) or is_sequential_string(value):
        return False
    if set(value) <= set(string.hexdigits):
        # A short one has too little room for entropy; without a word for it, it is a hash.
        secret = named and not says_hash and 16 <= len(value) <= 256
        return secret and bool(_HEX.calculate_shannon_entropy(value) > _HEX.entropy_limit)
    if not set(value) <= set(_BASE64.charset):
        return False
    if not named and (says_hash or not 20 <= len(value) <= MAX_UNNAMED_KEY):
        return False
    if not named:
        # Models, builds and routes are named by short pieces, owner/size-14-large-2b-b160k,
        # and a hash at the end; coordinates in base64 break it often.
        piece = max(re.split("[-_/=+]", value), key=len)
        if len(piece) < MIN_UNNAMED_PIECE or set(piece) <= set(string.hexdigits):
            return False
    limit = 3.5 if named else _BASE64.entropy_limit - 0.5
    return _is_gibberish(value) and _BASE64.calculate_shannon_entropy(value) > limit


def _is_gibberish(value: str) -> bool:
    """Digits among letters, and less than half of it in runs that could be words."""
    if not (any(map(str.isdigit, value)) and any(map(str.isalpha, value))):
        return False
    words = sum(
        len(word) for word in _WORD_LIKE.findall(value) if re.search("[aeiouyAEIOUY]", word)
    )
    turns = len(re.findall(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", value))
    return words < len(value) / 2 and turns >= len(value) / 16


# The base64 of a key in PEM, whether it stands bare in a long string or quoted line by line.
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(.{1,20000}?)-----END [A-Z ]*PRIVATE", re.DOTALL
)
_PEM_LINE = re.compile(r"[A-Za-z0-9+/=]{16,}")


def _private_keys(text: str) -> Iterator[Finding]:
    if "PRIVATE KEY" not in text:
        return
    for block in _PEM.finditer(text):
        for line in _PEM_LINE.finditer(text, block.start(1), block.end(1)):
            yield Finding("KEY", *line.span())
