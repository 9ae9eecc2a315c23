"""These make runs on Ray clusters of this machine, and need Ray: `make test-ray`.

Ray gives its processes a minute or less to start and to answer. A machine with other work needs longer, so all of these
limits are raised before Ray is imported. A killed node is still found at once, because its connections break. Ray also
lowers the priority of workers, so that beside other work they would stand still.
"""

import os

collect_ignore_glob = [] if os.environ.get("CAPACITY_RAY") else ["test_*.py"]

PATIENCE = 600  # seconds
os.environ.update(
    RAY_worker_niceness="0",
    RAY_worker_register_timeout_seconds=str(PATIENCE),
    RAY_gcs_server_port_wait_time_s=str(PATIENCE),
    RAY_gcs_server_request_timeout_seconds=str(PATIENCE),
    RAY_gcs_rpc_server_reconnect_timeout_s=str(PATIENCE),
    RAY_health_check_timeout_ms=str(1000 * PATIENCE),
)
