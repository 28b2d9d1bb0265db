"""Running pods: what a kubelet does, for pods made of namespaces.

One `node.NodeRunner` per node watches the pods bound to it; `pod.PodWorker` makes, keeps and
removes one pod; `container.ContainerWorker` one container with its probes. `spec` (what to run)
and `status` (what to report) are pure.
"""
