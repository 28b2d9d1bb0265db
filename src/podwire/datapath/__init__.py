"""The last stage down: make the kernel equal to the tables.

`maps` is the catalogue of maps, `programs` puts objects on hooks, `endpoints` plumbs a pod, `routes`
the node; `write` keeps maps equal to tables; `conntrack` sweeps and shows connections.
"""
