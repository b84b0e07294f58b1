"""Where a scheduler is reached, and who else can reach it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from gmm_dask.errors import SettingsError

MAX_PORT = 65535
_HERE = ("inproc",)  # schemes that nothing outside of this process reaches


def check_address(address: str, *, has_tls: bool, insecure: bool) -> None:
    """Raise SettingsError for an address that is none, or that strangers can reach unhindered.

    Parameters
    ----------
    has_tls : bool
        Whether there are certificates for tls://.
    insecure : bool
        Whether tcp:// beyond this machine is allowed.
    """
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    if scheme in _HERE:
        return
    if scheme not in ("tcp", "tls") or not host:
        raise SettingsError(
            "address must be tls://host:port, or tcp://127.0.0.1:port on this machine"
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT):
        raise SettingsError(
            f"{port!r} is no port: address must end in a number from 1 to {MAX_PORT}"
        )
    if scheme == "tls" and not has_tls:
        raise SettingsError("a tls:// address needs tls_ca_file, tls_cert and tls_key")
    if scheme == "tcp" and not _is_loopback(host) and not insecure:
        raise SettingsError(
            f"tcp://{host.rpartition('@')[2]}: tcp:// beyond this machine lets anyone on the "
            "network run code on the workers: use tls:// with certificates, or set insecure: true"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_certificates(ca_file: str | None, cert: str | None, key: str | None) -> None:
    """Raise SettingsError for files that are not there or are not what TLS needs of them."""
    files = {"tls_ca_file": ca_file, "tls_cert": cert, "tls_key": key}
    problems = [
        f"cluster.{name}: there is no file {path}. Relative paths start at the current folder."
        for name, path in files.items()
        if path is not None and not Path(path).is_file()
    ]
    if not problems and ca_file is not None and cert is not None:
        problems = [*_pem_problems(ca_file, cert, key)]
    if problems:
        raise SettingsError(*problems)


def _pem_problems(ca_file: str, cert: str, key: str | None) -> Iterator[str]:
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        yield f"cluster.tls_ca_file: {ca_file} is no readable PEM certificate ({error})."
    try:
        # A password is refused rather than asked for: nobody may be there to answer.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        yield (
            f"cluster.tls_cert, cluster.tls_key: {cert} and {key} are no readable pair of a PEM "
            f"certificate and its key without a password ({error})."
        )
