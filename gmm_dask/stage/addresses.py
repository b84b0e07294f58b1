"""Addresses of schedulers: what joins whom, and over what."""

from __future__ import annotations

from ipaddress import ip_address

MAX_PORT = 65535


def check_address(address: str, has_tls: bool, insecure: bool) -> None:
    """Raise ValueError where an address is none, or lets strangers run code unless asked to."""
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    if scheme not in ("tcp", "tls") or not host:
        raise ValueError("address must be tls://host:port, or tcp://127.0.0.1:port on this machine")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT):
        raise ValueError(f"{port!r} is no port: address must end in a number from 1 to {MAX_PORT}")
    if scheme == "tls" and not has_tls:
        raise ValueError("a tls:// address needs tls_ca_file, tls_cert and tls_key")
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host.lower() == "localhost"
    if scheme == "tcp" and not loopback and not insecure:
        raise ValueError(
            "tcp:// beyond this machine lets anyone on the network run code on the workers: "
            "use tls:// with certificates, or set insecure: true"
        )
