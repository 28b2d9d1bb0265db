"""What podwire does for the whole cluster, whatever the number of its nodes: its own controllers.

All of it is written once, on `podwire.kube.Api`, so that it is the same on the embedded API, in the sandbox's
control process, and on a real one, in ``podwire operator``. Of several, only one may run. What Kubernetes
itself does for a cluster is none of it (`podwire.controllermanager` emulates that in a sandbox).
"""
