"""How a gateway runs: sockets that outlive what serves, new settings, the end, and the process that comes after it.

service.py             a process as its operator meets it: signals, status listener, and when what happens
staff.py               what serves in it, as the service sees it: a gateway (alone.py), or workers (gateway/workers)
alone.py               one process: a gateway, and the one with newer settings that takes its place
sockets.py             the listeners' sockets
configuration_file.py  the file of settings: read again when told, or when it has changed
handover.py            the sockets handed to the process that comes after this one
system_manager.py      what systemd is told
"""
