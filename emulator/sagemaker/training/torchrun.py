"""`torchrun` for the hosts of a job, which are all on this machine: its store listens on the loopback interface only.

torchrun itself would listen on every interface, and its store asks nobody who they are. It takes the store that its
process has for a port already.
"""

import socket
import sys

from torch.distributed import TCPStore, run


def main() -> None:
    """Run torchrun with the arguments of this process."""
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
