"""Schemas of pods.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
Pod :: One or more containers that share a network namespace and an address.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! PodSpec #2 :: What the pod should be.
    status PodStatus #3 :: What the pod is, written by the node that runs it.

PodTemplateSpec :: What pods made from this template look like.
    metadata ObjectMeta #1 :: Labels and annotations of the pods.
    spec PodSpec #2 :: What the pods should be.

PodSpec :: What a pod should be.
    volumes []Volume #1 map=name merge=name retain :: Volumes containers may mount.
    initContainers []Container #20 map=name merge=name :: Containers that run to their end, one after
      the other, before the others start.
    containers! []Container #2 map=name merge=name minitems=1 :: Containers of the pod; at least one.
      The list cannot change later.
    ephemeralContainers []EphemeralContainer #34 map=name merge=name :: Containers added for debugging
      (kubectl debug).
    restartPolicy string #3 enum=Always|OnFailure|Never default=Always :: Whether containers that end
      are started again.
    terminationGracePeriodSeconds int64 #4 min=0 default=30 :: Seconds between SIGTERM and SIGKILL when
      the pod is deleted.
    activeDeadlineSeconds int64 #5 min=1 :: Seconds the pod may run at all.
    dnsPolicy string #6 enum=ClusterFirst|ClusterFirstWithHostNet|Default|None default=ClusterFirst ::
      Where the pod's resolver asks.
    nodeSelector map[string] #7 atomic :: Labels a node must have to run the pod.
    serviceAccountName string #8 :: The service account the pod runs as.
    serviceAccount string #9 :: Deprecated alias of serviceAccountName.
    automountServiceAccountToken boolean #21 :: Whether a token of the service account is mounted.
    nodeName string #10 :: The node that runs the pod; set by the scheduler, or by hand to go around it.
    hostNetwork boolean #11 :: Whether the pod uses the node's network instead of its own.
    hostPID boolean #12 :: Whether the pod sees the node's processes.
    hostIPC boolean #13 :: Whether the pod shares the node's IPC.
    shareProcessNamespace boolean #27 :: Whether the containers see each other's processes.
    securityContext PodSecurityContext #14 :: Users, groups and limits of all containers.
    imagePullSecrets []LocalObjectReference #15 map=name merge=name :: Secrets for pulling images.
    hostname string #16 :: The pod's host name; its own name if not given.
    subdomain string #17 :: With hostname: a name below a headless service of that name.
    affinity Affinity #18 :: On which nodes, and near which pods, the pod may or should run.
    schedulerName string #19 default=default-scheduler :: Who places the pod.
    tolerations []Toleration #22 :: Taints of nodes that the pod can live with.
    hostAliases []HostAlias #23 map=ip merge=ip :: Lines for the pod's /etc/hosts.
    priorityClassName string #24 :: Class that gives the pod its priority.
    priority integer #25 :: The priority.
    dnsConfig PodDNSConfig #26 :: More for the pod's resolv.conf.
    readinessGates []PodReadinessGate #28 :: Conditions that must be true, too, for the pod to be ready.
    runtimeClassName string #29 :: Class of the runtime.
    enableServiceLinks boolean #30 default=true :: Whether services of the namespace appear as
      environment variables.
    preemptionPolicy string #31 enum=Never|PreemptLowerPriority :: Whether the pod may push out others.
    overhead map[quantity] #32 :: Resources the runtime itself takes.
    topologySpreadConstraints []TopologySpreadConstraint #33 map=topologyKey,whenUnsatisfiable
      merge=topologyKey :: How pods spread over parts of the cluster.
    setHostnameAsFQDN boolean #35 :: Whether the host name is the full name.
    hostUsers boolean #37 :: Whether the pod uses the node's user namespace.

PodStatus :: What a pod is.
    phase string #1 :: Pending, Running, Succeeded, Failed or Unknown.
    conditions []PodCondition #2 map=type merge=type :: PodScheduled, Initialized, ContainersReady,
      Ready.
    message string #3 :: A sentence for people: why.
    reason string #4 :: A word: why.
    nominatedNodeName string #11 :: A node that is being cleared for the pod.
    hostIP string #5 :: Address of the node.
    hostIPs []HostIP #16 merge=ip :: Addresses of the node, one a family.
    podIP string #6 :: Address of the pod.
    podIPs []PodIP #12 map=ip merge=ip :: Addresses of the pod, one a family.
    startTime time #7 :: When the node took up the pod.
    initContainerStatuses []ContainerStatus #10 :: The init containers.
    containerStatuses []ContainerStatus #8 :: The containers.
    qosClass string #9 :: Guaranteed, Burstable or BestEffort.
    ephemeralContainerStatuses []ContainerStatus #13 :: The ephemeral containers.
    resize string #14 :: Whether a change of resources is under way.

PodCondition :: One aspect of a pod.
    type! string #1 :: Which aspect.
    status! string #2 :: True, False or Unknown.
    lastProbeTime time #3 nullable :: When it was last judged.
    lastTransitionTime time #4 nullable :: When the status last changed.
    reason string #5 :: A word: why.
    message string #6 :: A sentence for people.

PodIP :: An address of a pod.
    ip! string #1 :: The address.

HostIP :: An address of a node.
    ip! string #1 :: The address.

ContainerStatus :: What a container is.
    name! string #1 :: Its name.
    state ContainerState #2 :: What it does now.
    lastState ContainerState #3 :: How it ended last.
    ready boolean #4 :: Whether it passes its readiness probe.
    restartCount integer #5 :: How often it was started again.
    image string #6 :: The image it runs.
    imageID string #7 :: Identifier of that image.
    containerID string #8 :: Identifier at the runtime.
    started boolean #9 :: Whether its startup probe has passed.
    allocatedResources map[quantity] #10 :: Resources it was given.
    resources ResourceRequirements #11 :: Resources it has.

ContainerState :: What a container does; one of the three.
    waiting ContainerStateWaiting #1 :: It waits.
    running ContainerStateRunning #2 :: It runs.
    terminated ContainerStateTerminated #3 :: It has ended.

ContainerStateRunning :: A container that runs.
    startedAt time #1 :: Since when.

ContainerStateTerminated :: A container that has ended.
    exitCode! integer #1 :: Its exit code.
    signal integer #2 :: The signal that ended it.
    reason string #3 :: A word: why.
    message string #4 :: A sentence for people.
    startedAt time #5 :: When it started.
    finishedAt time #6 :: When it ended.
    containerID string #7 :: Identifier at the runtime.

ContainerStateWaiting :: A container that does not run yet.
    reason string #1 :: A word: why.
    message string #2 :: A sentence for people.
"""
