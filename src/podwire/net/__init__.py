"""The door to the kernel's network: links, addresses, routes, rules, neighbours, namespaces.

`Stack` is the network of one namespace with everything idempotent (`ensure_…`); `namespaces`
makes, enters and removes them.
"""
