"""A cluster on one machine: nodes and pods made of namespaces, one agent per node, the API embedded.

`lab` says what is wanted, `plan` gives it addresses, `up` makes it and `down` removes it by the
`record` of everything made. Of the processes, `keeper` starts and restarts, `control` holds the
API, the controllers, cluster DNS and the pod runners (`runner`), and each node has its agent.
"""
