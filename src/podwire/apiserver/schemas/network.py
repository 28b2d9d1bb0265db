"""Schemas of Services, slices, network policies.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
Service :: One name and address for a set of pods.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! ServiceSpec #2 :: What the service should be.
    status ServiceStatus #3 :: Addresses of its load balancer.

ServiceSpec :: What a service should be.
    ports []ServicePort #1 map=port,protocol merge=port :: Its ports.
    selector map[string] #2 atomic :: Labels of the pods it leads to; without it endpoints are made by
      hand.
    clusterIP string #3 :: Its address inside the cluster; None makes it headless.
    clusterIPs []string #18 :: The same, one a family.
    type string #4 enum=ClusterIP|NodePort|LoadBalancer|ExternalName default=ClusterIP :: From where it
      can be reached.
    externalIPs []string #5 :: Addresses of nodes that lead to it, too.
    sessionAffinity string #7 enum=None|ClientIP default=None :: Whether a client keeps its pod.
    loadBalancerIP string #8 :: Deprecated wish for the load balancer's address.
    loadBalancerSourceRanges []string #9 :: Who may use the load balancer.
    externalName string #10 :: The DNS name it stands for (type ExternalName).
    externalTrafficPolicy string #11 enum=Cluster|Local :: Whether traffic from outside stays on the
      node it came to.
    healthCheckNodePort integer #12 :: Port where a load balancer asks for health (Local).
    publishNotReadyAddresses boolean #13 :: Whether pods that are not ready count.
    sessionAffinityConfig SessionAffinityConfig #14 :: How long a client keeps its pod.
    ipFamilies []string #19 :: IPv4, IPv6, or both in order.
    ipFamilyPolicy string #17 enum=SingleStack|PreferDualStack|RequireDualStack :: Whether it has both
      families.
    allocateLoadBalancerNodePorts boolean #20 :: Whether a LoadBalancer gets node ports.
    loadBalancerClass string #21 :: Who implements the load balancer.
    internalTrafficPolicy string #22 enum=Cluster|Local :: Whether traffic from inside stays on its
      node.
    trafficDistribution string #23 :: A preference among endpoints, as PreferClose.

ServicePort :: A port of a service.
    name string #1 :: Its name; needed where there are several.
    protocol string #2 enum=TCP|UDP|SCTP default=TCP :: Its protocol.
    appProtocol string #6 :: The application's protocol.
    port! integer #3 min=1 max=65535 :: The port of the service.
    targetPort intorstring #4 :: The port of the pods, by number or name; the same port if not given.
    nodePort integer #5 min=0 max=65535 :: The port of the nodes (NodePort, LoadBalancer).

ServiceStatus :: What a service is.
    loadBalancer LoadBalancerStatus #1 :: Its load balancer.
    conditions []Condition #2 map=type merge=type :: Conditions.

LoadBalancerStatus :: A load balancer.
    ingress []LoadBalancerIngress #1 :: Where it is reached.

LoadBalancerIngress :: An address of a load balancer.
    ip string #1 :: The address.
    hostname string #2 :: Or its name.
    ipMode string #3 :: VIP or Proxy.
    ports []PortStatus #4 :: State of its ports.

PortStatus :: State of a port.
    port! integer #1 :: The port.
    protocol! string #2 :: Its protocol.
    error string #3 :: What is wrong.

SessionAffinityConfig :: How long a client keeps its pod.
    clientIP ClientIPConfig #1 :: By its address.

ClientIPConfig :: Affinity by address.
    timeoutSeconds integer #1 min=1 max=86400 :: How long.

Endpoints :: Addresses behind a service, in the old form.
    metadata ObjectMeta #1 :: Standard metadata.
    subsets []EndpointSubset #2 :: Groups of addresses and ports.

EndpointSubset :: Addresses that share ports.
    addresses []EndpointAddress #1 :: Those that are ready.
    notReadyAddresses []EndpointAddress #2 :: Those that are not.
    ports []EndpointPort #3 :: The ports.

EndpointAddress :: An address.
    ip! string #1 :: The address.
    hostname string #3 :: Its host name.
    nodeName string #4 :: The node it is on.
    targetRef ObjectReference #2 :: What it belongs to.

EndpointPort :: A port.
    name string #1 :: Its name, as in the service.
    port! integer #2 min=1 max=65535 :: The port.
    protocol string #3 enum=TCP|UDP|SCTP :: Its protocol.
    appProtocol string #4 :: The application's protocol.

EndpointSlice :: Addresses behind a service, one family and a part of them.
    metadata ObjectMeta #1 :: Standard metadata; the label kubernetes.io/service-name names the service.
    addressType! string #4 enum=IPv4|IPv6|FQDN :: Family of the addresses; cannot change.
    endpoints []Endpoint #2 maxitems=1000 :: The endpoints.
    ports []SlicePort #3 maxitems=100 :: Ports of each.

Endpoint :: One pod, or another backend.
    addresses! []string #1 set minitems=1 maxitems=100 :: Its addresses; all but the first are ignored.
    conditions EndpointConditions #2 :: Whether it takes traffic.
    hostname string #3 :: Its host name.
    targetRef ObjectReference #4 :: What it belongs to.
    deprecatedTopology map[string] #5 :: Deprecated.
    nodeName string #6 :: The node it is on.
    zone string #7 :: The zone it is in.
    hints EndpointHints #8 :: Who should use it.

EndpointConditions :: Whether an endpoint takes traffic.
    ready boolean #1 :: It takes new connections.
    serving boolean #2 :: It is ready, be it terminating or not.
    terminating boolean #3 :: It is being ended.

EndpointHints :: Who should use an endpoint.
    forZones []ForZone #1 :: Clients in these zones.

ForZone :: A zone.
    name! string #1 :: Its name.

SlicePort :: A port of all endpoints of a slice.
    name string #1 :: Its name, as in the service.
    protocol string #2 enum=TCP|UDP|SCTP default=TCP :: Its protocol.
    port integer #3 min=0 max=65535 :: The port; none is all ports.
    appProtocol string #4 :: The application's protocol.

NetworkPolicy :: Which traffic pods may receive and send.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! NetworkPolicySpec #2 :: The policy.

NetworkPolicySpec :: A policy. Pods it selects get only what some policy allows, in the directions it
      speaks of.
    podSelector LabelSelector #1 :: Which pods of the namespace it is for; empty is all.
    ingress []NetworkPolicyIngressRule #2 :: What they may receive; an empty list is nothing.
    egress []NetworkPolicyEgressRule #3 :: What they may send; an empty list is nothing.
    policyTypes []string #4 :: Directions it speaks of: Ingress, Egress.

NetworkPolicyIngressRule :: Traffic that may be received: from one of these, to one of these ports.
    ports []NetworkPolicyPort #1 :: Ports of the selected pods; none given is all.
    from []NetworkPolicyPeer #2 :: Sources; none given is all.

NetworkPolicyEgressRule :: Traffic that may be sent: to one of these, to one of these ports.
    ports []NetworkPolicyPort #1 :: Ports of the destination; none given is all.
    to []NetworkPolicyPeer #2 :: Destinations; none given is all.

NetworkPolicyPeer :: Pods, by labels of themselves and of their namespace, or a range of addresses.
    podSelector LabelSelector #1 :: Which pods.
    namespaceSelector LabelSelector #2 :: In which namespaces; not given is the policy's own.
    ipBlock IPBlock #3 :: A range of addresses outside of the cluster.

NetworkPolicyPort :: A port, a named port or a range.
    protocol string #1 enum=TCP|UDP|SCTP default=TCP :: Its protocol.
    port intorstring #2 :: Number or name; not given is all.
    endPort integer #3 min=1 max=65535 :: Last port of a range that begins at port.

IPBlock :: A range of addresses.
    cidr! string #1 :: The range, as 10.0.0.0/8.
    except []string #2 :: Parts of it that are not meant.
"""
