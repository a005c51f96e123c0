"""Every Python of the suite imports this when it starts: names below s3.forebay.test are this machine.

The domain itself is not, so that a client which puts the bucket into the path reaches nothing.
"""
import socket

_system = socket.getaddrinfo


def _getaddrinfo(host, *args, **options):
    name = host.decode() if isinstance(host, bytes) else host or ""
    return _system("127.0.0.1" if name.endswith(".s3.forebay.test") else host, *args, **options)


socket.getaddrinfo = _getaddrinfo
