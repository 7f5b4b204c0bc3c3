"""`qed info`: the server that answers, and the members of its cluster."""

from __future__ import annotations

import msgspec

from qed.cli.client import connect
from qed.cli.options import command, current_session

__all__ = ["info"]


@command("info", examples=["qed info", "qed --endpoints http://10.0.0.1:8800 info --json"])
def info() -> None:
    """Show the server that answers, and all members of its cluster."""
    session = current_session()
    with connect(session.settings) as client:
        node, shards = client.info(), client.shards()
    version = "none, the log is empty" if node.current_version is None else node.current_version
    session.terminal.fields(
        "Received info with values:",
        [
            ("NodeId", node.node_id),
            ("Leader", shards.leader_id or "none"),
            ("Software", node.version),
            ("HttpAddr", node.http_addr),
            ("MgmtAddr", node.mgmt_addr),
            ("MetricsAddr", node.metrics_addr),
            ("RaftAddr", node.raft_addr),
            ("CurrentVersion", version),
            ("Events", node.events),
        ],
    )
    rows = [
        (shard.node_id, f"{shards.uri_scheme}://{shard.http_addr}", "leader" if name == shards.leader_id else "")
        for name, shard in sorted(shards.shards.items())
    ]
    session.terminal.table(("NodeId", "Address", "Role"), rows)
    session.terminal.records([{"Info": msgspec.to_builtins(node), "Shards": msgspec.to_builtins(shards)}])
