"""Several processes behind one set of ports: `ostiary serve --workers N`. The supervisor touches no request.

supervisor.py  the process: sockets, status listener, signals, new settings
crew.py        the workers: started, restarted, replaced and ended
backoff.py     how soon one that died is started again
report.py      what the status listener says of all of them
sockets.py     the listeners' sockets, one for each worker, which outlive it
process.py     one worker, as the supervisor sees it
channel.py     what the two say to each other
node.py        one worker, as it sees itself: a node like any other
"""
