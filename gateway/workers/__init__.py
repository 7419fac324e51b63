"""Several processes behind one set of ports: `ostiary serve --workers N`. What starts them touches no request.

crew.py        the workers: started, restarted, replaced and ended, as the service (gateway/running) wants
backoff.py     how soon one that died is started again
report.py      what the status listener says of all of them
process.py     one worker, as the crew sees it
channel.py     what the two say to each other
node.py        one worker, as it sees itself: a node like any other
"""
