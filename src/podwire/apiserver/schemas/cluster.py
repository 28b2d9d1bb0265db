"""Schemas of namespaces, nodes, configuration, events, leases, reviews.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
Namespace :: A space for names; objects in it are deleted with it.
    metadata ObjectMeta #1 :: Standard metadata.
    spec NamespaceSpec #2 :: What the namespace should be.
    status NamespaceStatus #3 :: What the namespace is.

NamespaceSpec :: What a namespace should be.
    finalizers []string #1 :: Who must empty the namespace before it goes.

NamespaceStatus :: What a namespace is.
    phase string #1 :: Active or Terminating.
    conditions []NamespaceCondition #2 map=type merge=type :: Why it still terminates.

NamespaceCondition :: One aspect of a namespace.
    type! string #1 :: Which aspect.
    status! string #2 :: True, False or Unknown.
    lastTransitionTime time #4 :: When the status last changed.
    reason string #5 :: A word: why.
    message string #6 :: A sentence for people.

Node :: A machine (in a sandbox: a network namespace) that runs pods.
    metadata ObjectMeta #1 :: Standard metadata.
    spec NodeSpec #2 :: What the node should be.
    status NodeStatus #3 :: What the node is, written by its kubelet.

NodeSpec :: What a node should be.
    podCIDR string #1 :: The range its pods get addresses from.
    podCIDRs []string #7 mergeset set :: The same, one for each family.
    providerID string #3 :: Identifier at the provider of the machine.
    unschedulable boolean #4 :: Whether new pods must not be placed here (kubectl cordon).
    taints []Taint #5 :: Marks that keep away pods which do not tolerate them.

Taint :: A mark on a node.
    key! string #1 :: Key of the taint.
    value string #2 :: Value of the taint.
    effect! string #3 enum=NoSchedule|PreferNoSchedule|NoExecute :: What happens to pods that do not
      tolerate it.
    timeAdded time #4 :: When it was added (NoExecute only).

NodeStatus :: What a node is.
    capacity map[quantity] #1 :: All of its resources.
    allocatable map[quantity] #2 :: Resources pods may use.
    phase string #3 :: Deprecated.
    conditions []NodeCondition #4 map=type merge=type :: Ready, and what presses the node.
    addresses []NodeAddress #5 merge=type :: Where the node is reached.
    daemonEndpoints NodeDaemonEndpoints #6 :: Ports of its daemons.
    nodeInfo NodeSystemInfo #7 :: Versions of its software.
    images []ContainerImage #8 :: Images the node has.
    volumesInUse []string #9 :: Volumes in use.

NodeAddress :: One address of a node.
    type! string #1 :: InternalIP, ExternalIP, Hostname, InternalDNS or ExternalDNS.
    address! string #2 :: The address.

NodeCondition :: One aspect of a node.
    type! string #1 :: Which aspect, Ready above all.
    status! string #2 :: True, False or Unknown.
    lastHeartbeatTime time #3 :: When it was last reported.
    lastTransitionTime time #4 :: When the status last changed.
    reason string #5 :: A word: why.
    message string #6 :: A sentence for people.

NodeDaemonEndpoints :: Ports of daemons on a node.
    kubeletEndpoint DaemonEndpoint #1 :: Where the kubelet listens.

DaemonEndpoint :: A port of a daemon.
    Port! integer #1 :: The port.

NodeSystemInfo :: Versions of a node's software.
    machineID string #1 :: Identifier of the machine.
    systemUUID string #2 :: UUID of the machine.
    bootID string #3 :: Identifier of this boot.
    kernelVersion string #4 :: Version of the kernel.
    osImage string #5 :: Name of the operating system's distribution.
    containerRuntimeVersion string #6 :: What runs the pods.
    kubeletVersion string #7 :: Version of the kubelet.
    kubeProxyVersion string #8 :: Version of kube-proxy.
    operatingSystem string #9 :: linux.
    architecture string #10 :: amd64, arm64, …

ContainerImage :: An image a node has.
    names []string #1 :: Names of the image.
    sizeBytes int64 #2 :: Its size.

ConfigMap :: Configuration as keys and values.
    metadata ObjectMeta #1 :: Standard metadata.
    immutable boolean #4 :: Whether the data must not change any more.
    data map[string] #2 :: Text by key.
    binaryData map[bytes] #3 :: Bytes by key, base64.

Secret :: Secret values by key.
    metadata ObjectMeta #1 :: Standard metadata.
    immutable boolean #5 :: Whether the data must not change any more.
    data map[bytes] #2 :: Bytes by key, base64.
    stringData map[string] #4 :: Text by key; stored into data, never shown.
    type string #3 :: What kind of secret it is.

ServiceAccount :: An identity for programs that run in pods.
    metadata ObjectMeta #1 :: Standard metadata.
    secrets []ObjectReference #2 map=name merge=name :: Secrets its pods may use.
    imagePullSecrets []LocalObjectReference #3 :: Secrets for pulling images.
    automountServiceAccountToken boolean #4 :: Whether pods get a token of it.

ObjectReference :: Names another object.
    kind string #1 :: Its kind.
    namespace string #2 :: Its namespace.
    name string #3 :: Its name.
    uid string #4 :: Its UID.
    apiVersion string #5 :: Its API version.
    resourceVersion string #6 :: The version that is meant.
    fieldPath string #7 :: The part that is meant, for example spec.containers{web}.

LocalObjectReference :: Names an object in the same namespace.
    name string #1 :: Its name.

Event :: Something that happened to an object.
    metadata ObjectMeta #1 :: Standard metadata.
    involvedObject! ObjectReference #2 :: What it happened to.
    reason string #3 :: A word: why.
    message string #4 :: A sentence for people.
    source EventSource #5 :: Who reports it.
    firstTimestamp time #6 :: When it first happened.
    lastTimestamp time #7 :: When it last happened.
    count integer #8 :: How often it happened.
    type string #9 :: Normal or Warning.
    eventTime microtime #10 :: When it first happened, in microseconds.
    series EventSeries #11 :: How it repeats.
    action string #12 :: What was done about it.
    related ObjectReference #13 :: Another object that has to do with it.
    reportingComponent string #14 :: The controller that reports it.
    reportingInstance string #15 :: The instance of that controller.

EventSource :: Who reports an event.
    component string #1 :: The component.
    host string #2 :: The node it runs on.

EventSeries :: A repeating event.
    count integer #1 :: How often it happened so far.
    lastObservedTime microtime #2 :: When it was last seen.

EventsEvent :: Something that happened to an object.
    metadata ObjectMeta #1 :: Standard metadata.
    eventTime microtime #2 :: When it first happened, in microseconds.
    series EventSeries #3 :: How it repeats.
    reportingController string #4 :: The controller that reports it.
    reportingInstance string #5 :: The instance of that controller.
    action string #6 :: What was done about it.
    reason string #7 :: A word: why.
    regarding ObjectReference #8 :: What it happened to.
    related ObjectReference #9 :: Another object that has to do with it.
    note string #10 :: A sentence for people.
    type string #11 :: Normal or Warning.
    deprecatedSource EventSource #12 :: Who reports it, as old clients say it.
    deprecatedFirstTimestamp time #13 :: When it first happened.
    deprecatedLastTimestamp time #14 :: When it last happened.
    deprecatedCount integer #15 :: How often it happened.

Binding :: Places a pod on a node.
    metadata ObjectMeta #1 :: Standard metadata; the name is the pod's.
    target! ObjectReference #2 :: The node.

Lease :: Who holds something, and until when: leader election and node heartbeats.
    metadata ObjectMeta #1 :: Standard metadata.
    spec LeaseSpec #2 :: The lease.

LeaseSpec :: A lease.
    holderIdentity string #1 :: Who holds it.
    leaseDurationSeconds integer #2 :: Seconds after renewTime at which others may take it.
    acquireTime microtime #3 :: When the holder took it.
    renewTime microtime #4 :: When the holder last renewed it.
    leaseTransitions integer #5 :: How often it changed hands.
    strategy string #6 :: How the leader is chosen.
    preferredHolder string #7 :: Who should hold it next.

SelfSubjectReview :: Asks who the client is.
    metadata ObjectMeta #1 :: Standard metadata.
    status SelfSubjectReviewStatus #2 :: The answer.

SelfSubjectReviewStatus :: Who the client is.
    userInfo UserInfo #1 :: The client.

UserInfo :: A known client.
    username string #1 :: Its name.
    uid string #2 :: Its UID.
    groups []string #3 :: Groups it is in.
    extra object #4 :: More about it.

TokenRequest :: Asks for a token of a service account.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! TokenRequestSpec #2 :: What token.
    status TokenRequestStatus #3 :: The token.

TokenRequestSpec :: What token is asked for.
    audiences []string #1 :: Who will be shown the token.
    expirationSeconds int64 #4 :: How long it should be valid.
    boundObjectRef BoundObjectReference #3 :: An object the token should die with.

TokenRequestStatus :: A token.
    token string #1 :: The token.
    expirationTimestamp time #2 :: When it ends.

BoundObjectReference :: An object a token is bound to.
    kind string #1 :: Its kind.
    apiVersion string #2 :: Its API version.
    name string #3 :: Its name.
    uid string #4 :: Its UID.

TokenReview :: Asks whose token this is.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! TokenReviewSpec #2 :: The token.
    status TokenReviewStatus #3 :: The answer.

TokenReviewSpec :: A token to judge.
    token string #1 :: The token.
    audiences []string #2 :: Who it is shown to.

TokenReviewStatus :: Whose token it is.
    authenticated boolean #1 :: Whether it is valid.
    user UserInfo #2 :: Whose it is.
    audiences []string #4 :: Audiences it is valid for.
    error string #3 :: Why it could not be judged.

SelfSubjectAccessReview :: Asks whether the client may do something.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! SelfSubjectAccessReviewSpec #2 :: What it would do.
    status SubjectAccessReviewStatus #3 :: The answer.

SelfSubjectAccessReviewSpec :: What the client would do.
    resourceAttributes ResourceAttributes #1 :: With which resource.
    nonResourceAttributes NonResourceAttributes #2 :: With which path.

ResourceAttributes :: An action on a resource.
    namespace string #1 :: Namespace; empty is all.
    verb string #2 :: get, list, create, …
    group string #3 :: API group.
    version string #4 :: API version.
    resource string #5 :: The resource's plural.
    subresource string #6 :: Its subresource.
    name string #7 :: The object's name.

NonResourceAttributes :: An action on a path.
    path string #1 :: The path.
    verb string #2 :: The HTTP method in lower case.

SubjectAccessReview :: Asks whether somebody may do something.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! SubjectAccessReviewSpec #2 :: Who would do what.
    status SubjectAccessReviewStatus #3 :: The answer.

SubjectAccessReviewSpec :: Who would do what.
    resourceAttributes ResourceAttributes #1 :: With which resource.
    nonResourceAttributes NonResourceAttributes #2 :: With which path.
    user string #3 :: Who.
    groups []string #4 :: Groups of who.
    uid string #6 :: UID of who.

SubjectAccessReviewStatus :: Whether it is allowed.
    allowed boolean #1 :: Whether it is allowed.
    denied boolean #4 :: Whether it is forbidden for good.
    reason string #2 :: Why.
    evaluationError string #3 :: Why it could not be judged.

Eviction :: Ends a pod in an orderly way.
    metadata ObjectMeta #1 :: Names the pod.
    deleteOptions DeleteOptions #2 :: How to delete it.
"""
