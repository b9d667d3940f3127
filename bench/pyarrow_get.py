"""pyarrow_get.py ADDRESS WHAT: for every line on stdin reads once and prints {"bytes", "seconds"}.

WHAT is a path (through GetFlightInfo) or, where it is a number, a ticket as it is.
"""

import json
import sys
import time

import pyarrow.flight as fl

address, what = sys.argv[1:]
client = fl.connect(address)
for _ in sys.stdin:
    begin = time.perf_counter()
    if what.isdigit():
        tickets = [fl.Ticket(what.encode())]
    else:
        tickets = [e.ticket for e in client.get_flight_info(fl.FlightDescriptor.for_path(what)).endpoints]
    total = sum(chunk.data.nbytes for ticket in tickets for chunk in client.do_get(ticket))
    print(json.dumps({"bytes": total, "seconds": time.perf_counter() - begin}), flush=True)
