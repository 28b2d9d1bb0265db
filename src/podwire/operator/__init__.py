"""What one process does for the whole cluster, whatever the number of its nodes.

All of it speaks to the API as a client, so that it is the same beside the embedded API (in the sandbox's
control process) and in a cluster. Of several, only one may run.
"""
