"""Pure parts of signing in: password policy, time steps, recovery codes, budgets, addresses behind proxies."""

from __future__ import annotations

import ipaddress
import time
from datetime import UTC, datetime, timedelta

import pyotp
import pytest

from foramen.identity.forwarded import address_behind, parse_proxies
from foramen.identity.people import recovery_codes, throttling, totp
from foramen.identity.people.browser_name import browser_name
from foramen.identity.people.password_policy import COMMON, TOO_LONG, TOO_SHORT, password_fault
from foramen.identity.people.second_factor import second_factor_roles
from foramen.identity.people.throttling import Bucket, address_budget, after_failure
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.settings import Settings

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("short", TOO_SHORT),
        ("x" * 257, TOO_LONG),
        ("passwordpassword", COMMON),
        ("P@ssw0rdP@ssw0rd", COMMON),
        ("123456789012345", COMMON),
        ("qwertyuiop1234", COMMON),
        ("iloveyou1234", COMMON),
        ("aaaaaaaaaaaaaaaa", COMMON),
        ("drmaria.chen2026", COMMON),  # the person's own name
        ("Foramen12345", COMMON),  # the service's name
        ("inst1-Foramen-Chen", COMMON),
        ("correct horse battery", None),
        ("all lower case and long", None),  # no composition rules
        ("雨后的山路很滑，慢慢走比较好", None),
    ],
)
def test_policy(password: str, fault: str | None):
    assert password_fault(password, ("drmaria.chen", "inst1")) == fault


def test_policy_looks_at_the_normal_form():
    assert password_fault("ｐａｓｓｗｏｒｄｐａｓｓｗｏｒｄ") == COMMON


@pytest.mark.parametrize("password", ["4@8({[<369&!1|0$5+7%2" * 12, "4(836910572!" * 20, "x" * 256, "aA1!" * 64])
def test_no_password_makes_the_estimate_costly(password: str):
    began = time.process_time()  # CPU of this process, 26 ms at most here; without the limits seconds
    password_fault(password)
    assert time.process_time() - began < 0.4


def test_codes_of_rfc_6238_appendix_b():
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # "12345678901234567890"
    for seconds, code in (
        (1111111111, "050471"),
        (1111111109, "081804"),
        (1234567890, "005924"),
        (2000000000, "279037"),
    ):
        moment = datetime.fromtimestamp(seconds, UTC)
        assert totp.matching_step(secret, code, moment, 0) == seconds // 30
        assert totp.matching_step(secret, f" {code[:3]} {code[3:]} ", moment, 0) == seconds // 30
        assert totp.matching_step(secret, code, moment, seconds // 30) is None  # used
        assert totp.matching_step(secret, code, moment + timedelta(seconds=95), 0) is None  # too old
        assert totp.matching_step(secret, code, moment - timedelta(seconds=95), 0) is None  # from the future


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "１２３４５", "٣٤٥٦٧٨", "1 2 3 4 5"])
def test_what_is_no_code(code: str):
    assert totp.matching_step(pyotp.random_base32(), code, NOW, 0) is None


def test_uri_and_qr_code():
    uri = totp.provisioning_uri(pyotp.random_base32(), "dr chen", "Foramen")
    assert uri.startswith("otpauth://totp/Foramen:dr%20chen?")
    svg = totp.qr_svg(uri)
    assert svg.startswith("<svg")
    assert "href" not in svg
    assert "<script" not in svg


def test_recovery_codes_are_many_long_and_read_as_typed():
    codes = recovery_codes.new_codes()
    assert len(set(codes)) == 10
    assert all(len(recovery_codes.canonical(code)) == 24 for code in codes)
    assert recovery_codes.canonical(codes[0].lower().replace("-", " ")) == recovery_codes.canonical(codes[0])
    assert recovery_codes.canonical("O0I1B8") == "OOIIBB"


def test_waits_grow_and_failures_leak_away():
    bucket, waits = None, []
    for _ in range(16):
        bucket = after_failure(bucket, NOW, 5, 5, 3000)
        waits.append((bucket.blocked_until - NOW).total_seconds())
    assert waits[:5] == [0] * 5
    assert waits[5:9] == [2, 4, 8, 16]
    assert waits[-1] == throttling.LONGEST_WAIT_S
    assert Bucket(5, NOW, NOW).level_at(NOW + timedelta(seconds=600), 5, 3000) == 4
    assert Bucket(5, NOW, NOW).level_at(NOW + timedelta(days=9), 5, 3000) == 0


def test_an_ipv6_network_shares_one_budget():
    assert address_budget("2001:db8::1") == address_budget("2001:db8::ffff:1:2") != address_budget("2001:db8:0:1::1")
    assert address_budget("::ffff:192.0.2.7") == address_budget("192.0.2.7")
    assert address_budget(None) == address_budget("no address")


def test_only_trusted_proxies_are_believed():
    proxies = parse_proxies("10.0.0.0/8, 192.0.2.1")
    assert address_behind("203.0.113.9", ["198.51.100.1"], proxies) == "203.0.113.9"
    assert address_behind("10.0.0.1", ["198.51.100.1"], proxies) == "198.51.100.1"
    assert address_behind("10.0.0.1", ["1.2.3.4, 198.51.100.1"], proxies) == "198.51.100.1"  # the left part is claimed
    assert address_behind("10.0.0.1", ["198.51.100.1, 10.2.0.1"], proxies) == "198.51.100.1"
    assert address_behind("10.0.0.1", ["198.51.100.1", "192.0.2.1"], proxies) == "198.51.100.1"
    assert address_behind("10.0.0.1", ["<script>"], proxies) == "10.0.0.1"
    assert address_behind("10.0.0.1", [], proxies) == "10.0.0.1"
    assert address_behind("10.0.0.1", ["198.51.100.1"], ()) == "10.0.0.1"
    assert proxies[0] == ipaddress.ip_network("10.0.0.0/8")
    with pytest.raises(InvalidRequestError):
        parse_proxies("everybody")


def test_an_ipv4_address_in_ipv6_form_is_that_address():
    """A socket for both families shows its IPv4 peers so (RFC 4291 §2.5.5.2)."""
    for text in ("10.0.0.0/8", "::ffff:10.0.0.0/104"):
        proxies = parse_proxies(text)
        assert address_behind("::ffff:10.0.0.1", ["198.51.100.1"], proxies) == "198.51.100.1", text
        assert address_behind("10.0.0.1", ["::ffff:198.51.100.1, ::ffff:10.0.0.2"], proxies) == "198.51.100.1", text
        assert address_behind("::ffff:11.0.0.1", ["198.51.100.1"], proxies) == "::ffff:11.0.0.1", text
    assert address_behind("2001:db8::1", ["198.51.100.1"], parse_proxies("0.0.0.0/0")) == "2001:db8::1"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36", "Chrome · Windows"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 Edg/126.0", "Edge · Windows"),
        ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) Version/17.5 Safari/604.1", "Safari · iPad"),
        ("curl/8.9", "curl/8.9"),
        ("x" * 500, "x" * 80),
    ],
)
def test_browser_names(user_agent: str, name: str):
    assert browser_name(user_agent) == name


def test_a_role_that_does_not_exist_is_no_setting():
    assert second_factor_roles(Settings(second_factor_roles="")) == frozenset()
    assert second_factor_roles(Settings()) == {"system-administrator", "institution-administrator"}
    with pytest.raises(InvalidRequestError):
        second_factor_roles(Settings(second_factor_roles="system_administrator"))
