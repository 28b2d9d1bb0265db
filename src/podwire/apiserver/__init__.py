"""The embedded Kubernetes API: what `kubectl`, the agents and the sandbox talk to.

At the top of the walk: manifests come in here and go down as watches. One process, one SQLite
file; `ApiServer` for use inside another process, ``python -m podwire.apiserver`` by itself.
"""

from podwire.apiserver.config import ClusterSettings, ServerConfig
from podwire.apiserver.server import ApiServer

__all__ = ["ApiServer", "ClusterSettings", "ServerConfig"]
