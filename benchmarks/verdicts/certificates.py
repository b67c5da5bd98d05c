"""Makes the certificates of the table's TLS servers with the openssl program."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_LOCAL = "DNS:localhost,IP:127.0.0.1,IP:::1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """An authority of our own, and what it, or nobody, has signed."""

    authority: Pair
    valid: Pair
    expired: Pair
    wrong_host: Pair
    self_signed: Pair
    client: Pair


def make_certificates(folder: Path) -> Certificates:
    """Write all of them into *folder*."""
    authority = Pair(cert=folder / "ca.pem", key=folder / "ca.key")
    lasting = ("-x509", "-days", "30")
    _openssl("req", *lasting, *_CURVE, "-subj", "/CN=Verdicts", *_out(authority))
    alone = Pair(cert=folder / "alone.pem", key=folder / "alone.key")
    names = ("-addext", f"subjectAltName={_LOCAL}")
    _openssl("req", *lasting, *_CURVE, "-subj", "/CN=localhost", *names, *_out(alone))
    return Certificates(
        authority=authority,
        self_signed=alone,
        valid=_signed(folder, authority, "valid", _LOCAL, 30),
        expired=_signed(folder, authority, "expired", _LOCAL, -1),
        wrong_host=_signed(folder, authority, "other", "DNS:other.example", 30),
        client=_signed(folder, authority, "client", "DNS:client.example", 30),
    )


def _signed(folder: Path, authority: Pair, name: str, alternative: str, days: int) -> Pair:
    pair = Pair(cert=folder / f"{name}.pem", key=folder / f"{name}.key")
    request = folder / f"{name}.csr"
    subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}")
    _openssl("req", *_CURVE, *subject, "-keyout", str(pair.key), "-out", str(request))
    by = ("-CA", str(authority.cert), "-CAkey", str(authority.key), "-CAcreateserial")
    given = ("-in", str(request), "-copy_extensions", "copyall", "-out", str(pair.cert))
    _openssl("x509", "-req", *by, *given, *_dates(days))
    return pair


def _dates(days: int) -> Sequence[str]:
    # OpenSSL 3.4 and later refuse to sign what ends before it begins; earlier ones take no dates.
    if "-not_before" not in _openssl("x509", "-help"):
        return ("-days", str(days))
    end = f"{datetime.now(UTC) + timedelta(days=days):%Y%m%d%H%M%SZ}"
    return ("-not_before", "20200101000000Z", "-not_after", end)


def _out(pair: Pair) -> Sequence[str]:
    return ("-keyout", str(pair.key), "-out", str(pair.cert))


def _openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")
    return done.stdout + done.stderr
