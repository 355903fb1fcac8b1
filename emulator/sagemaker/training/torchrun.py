"""`torchrun` for the hosts of a job, which are all on this machine: all that listens does so on the loopback interface.

torchrun itself would listen on every interface, and its store asks nobody who they are. It takes the store that its
process has for a port already. Gloo would listen on the interface that the machine's name leads to.
"""

import os
import socket
import sys

from torch.distributed import TCPStore, run


def main() -> None:
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    options, store = run.parse_args(sys.argv[1:]), None
    if options.node_rank == 0:
        listener = socket.create_server((options.master_addr, options.master_port))
        store = TCPStore(
            options.master_addr,
            options.master_port,
            is_master=True,
            wait_for_workers=False,
            multi_tenant=True,
            master_listen_fd=listener.detach(),
        )
    run.main()
    del store  # and not before


if __name__ == "__main__":
    main()
