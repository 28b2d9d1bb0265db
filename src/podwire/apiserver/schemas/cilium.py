"""Schemas of Cilium's kinds.

Read by `language`; names are Cilium's (cilium.io/v2). Definitions have their parts written out when
they become CustomResourceDefinitions.
"""

DEFINITIONS = r"""
CiliumNetworkPolicy :: Which traffic pods of a namespace may receive and send, down to names and requests.
  spec CiliumRule :: One rule.
  specs []CiliumRule :: Several rules.
  status CiliumPolicyStatus :: Whether the rules are valid.

CiliumClusterwideNetworkPolicy :: Which traffic pods of all namespaces, or nodes, may receive and send.
  spec CiliumRule :: One rule.
  specs []CiliumRule :: Several rules.
  status CiliumPolicyStatus :: Whether the rules are valid.

CiliumPolicyStatus :: Whether the rules of a policy are valid.
  conditions []Condition map=type :: Conditions, Valid above all.
  derivativePolicies object :: Policies derived from this one.

CiliumRule :: What the selected endpoints may receive and send. A direction that has rules is denied by
      default for what no rule allows; deny rules win over all others.
  endpointSelector CiliumSelector :: The pods it is for; empty is all.
  nodeSelector CiliumSelector :: The nodes it is for (clusterwide policies only).
  ingress []CiliumIngressRule :: What may be received.
  ingressDeny []CiliumIngressDenyRule :: What must not be received.
  egress []CiliumEgressRule :: What may be sent.
  egressDeny []CiliumEgressDenyRule :: What must not be sent.
  labels []CiliumLabel :: Labels of the rule itself.
  enableDefaultDeny CiliumDefaultDeny :: Whether what is not allowed is denied, by direction.
  description string :: What the rule is for.
  log CiliumLog :: A text shown with flows the rule decides.

CiliumSelector :: Selects by labels; all requirements must hold. Keys may have a source, as k8s:app.
  matchLabels map[string] :: Labels with exactly these values.
  matchExpressions []CiliumRequirement :: Requirements on labels.

CiliumRequirement :: A requirement on one label.
  key! string :: The label's key.
  operator! string enum=In|NotIn|Exists|DoesNotExist :: How the label relates to the values.
  values []string :: Values for In and NotIn.

CiliumLabel :: A label.
  key! string :: Its key.
  value string :: Its value.
  source string :: Its source.

CiliumDefaultDeny :: Whether what is not allowed is denied.
  ingress boolean :: In what is received.
  egress boolean :: In what is sent.

CiliumLog :: A text for the log of flows.
  value string maxlen=32 :: The text; printable characters.

CiliumIngressRule :: Traffic that may be received: from one kind of source, to these ports. A rule without
      source allows all of them.
  fromEndpoints []CiliumSelector :: Pods, in the policy's namespace unless a namespace is named.
  fromRequires []CiliumSelector maxitems=0 :: No longer supported.
  fromCIDR []string :: Ranges of addresses outside of the cluster.
  fromCIDRSet []CiliumCIDRRule :: Ranges with exceptions.
  fromEntities []string :: Entities: all, world, cluster, host, remote-node, kube-apiserver, init, health,
      unmanaged, ingress, none.
  fromGroups []object :: Groups of a cloud provider; not supported here.
  fromNodes []CiliumSelector :: Nodes by their labels.
  toPorts []CiliumPortRule :: Ports and requests on them.
  icmps []CiliumICMPRule :: ICMP types.
  authentication CiliumAuthentication :: Whether the peer must prove who it is.

CiliumIngressDenyRule :: Traffic that must not be received.
  fromEndpoints []CiliumSelector :: Pods, in the policy's namespace unless a namespace is named.
  fromRequires []CiliumSelector maxitems=0 :: No longer supported.
  fromCIDR []string :: Ranges of addresses outside of the cluster.
  fromCIDRSet []CiliumCIDRRule :: Ranges with exceptions.
  fromEntities []string :: Entities.
  fromGroups []object :: Groups of a cloud provider; not supported here.
  fromNodes []CiliumSelector :: Nodes by their labels.
  toPorts []CiliumPortDenyRule :: Ports.
  icmps []CiliumICMPRule :: ICMP types.

CiliumEgressRule :: Traffic that may be sent: to one kind of destination, to these ports.
  toEndpoints []CiliumSelector :: Pods, in the policy's namespace unless a namespace is named.
  toRequires []CiliumSelector maxitems=0 :: No longer supported.
  toCIDR []string :: Ranges of addresses outside of the cluster.
  toCIDRSet []CiliumCIDRRule :: Ranges with exceptions.
  toEntities []string :: Entities: all, world, cluster, host, remote-node, kube-apiserver, init, health,
      unmanaged, ingress, none.
  toServices []CiliumService :: Services.
  toGroups []object :: Groups of a cloud provider; not supported here.
  toNodes []CiliumSelector :: Nodes by their labels.
  toFQDNs []CiliumFQDN :: DNS names whose answers were seen.
  toPorts []CiliumPortRule :: Ports and requests on them.
  icmps []CiliumICMPRule :: ICMP types.
  authentication CiliumAuthentication :: Whether the peer must prove who it is.

CiliumEgressDenyRule :: Traffic that must not be sent.
  toEndpoints []CiliumSelector :: Pods, in the policy's namespace unless a namespace is named.
  toRequires []CiliumSelector maxitems=0 :: No longer supported.
  toCIDR []string :: Ranges of addresses outside of the cluster.
  toCIDRSet []CiliumCIDRRule :: Ranges with exceptions.
  toEntities []string :: Entities.
  toServices []CiliumService :: Services.
  toGroups []object :: Groups of a cloud provider; not supported here.
  toNodes []CiliumSelector :: Nodes by their labels.
  toPorts []CiliumPortDenyRule :: Ports.
  icmps []CiliumICMPRule :: ICMP types.

CiliumCIDRRule :: A range of addresses, by itself or by a group of ranges.
  cidr string :: The range, as 10.0.0.0/8.
  cidrGroupRef string :: Name of a CiliumCIDRGroup.
  cidrGroupSelector CiliumSelector :: CiliumCIDRGroups by their labels.
  except []string :: Parts of the range that are not meant.

CiliumService :: A service, by name or by labels.
  k8sService CiliumServiceName :: By name.
  k8sServiceSelector CiliumServiceSelector :: By labels.

CiliumServiceName :: A service by name.
  serviceName string :: Its name.
  namespace string :: Its namespace.

CiliumServiceSelector :: Services by labels.
  selector! CiliumSelector :: The labels.
  namespace string :: Their namespace.

CiliumFQDN :: A DNS name, or a pattern.
  matchName string maxlen=255 :: The name.
  matchPattern string maxlen=255 :: A pattern; * is any number of characters in a label.

CiliumPortRule :: Ports, and what is allowed on them.
  ports []CiliumPort maxitems=40 :: The ports.
  terminatingTLS CiliumTLS :: The certificate shown to the client.
  originatingTLS CiliumTLS :: The certificates trusted toward the server.
  serverNames []string :: Names in TLS handshakes.
  listener CiliumListener :: A listener of Envoy the traffic goes to.
  rules CiliumL7Rules :: Requests that are allowed; nothing given is all of them.

CiliumPortDenyRule :: Ports.
  ports []CiliumPort maxitems=40 :: The ports.

CiliumPort :: A port, a range or a named port.
  port string pattern=^[a-zA-Z0-9][a-zA-Z0-9-]{0,14}$ :: Number or name; 0 is all.
  endPort integer min=0 max=65535 :: Last port of a range that begins at port.
  protocol string enum=TCP|UDP|SCTP|ICMP|ICMPv6|VRRP|IGMP|ANY|tcp|udp|sctp|any :: Its protocol; ANY if not
      given.

CiliumTLS :: Where certificates are.
  secret! CiliumSecret :: The secret.
  trustedCA string :: Its item with trusted certificates.
  certificate string :: Its item with the certificate.
  privateKey string :: Its item with the key.

CiliumSecret :: A secret.
  name! string :: Its name.
  namespace string :: Its namespace.

CiliumListener :: A listener of Envoy.
  envoyConfig! CiliumEnvoyConfigRef :: Where it is declared.
  name! string minlen=1 :: Its name.
  priority integer min=0 max=100 :: Which of several wins; the lowest number.

CiliumEnvoyConfigRef :: An Envoy configuration.
  kind string enum=CiliumEnvoyConfig|CiliumClusterwideEnvoyConfig :: Its kind.
  name! string minlen=1 :: Its name.

CiliumL7Rules :: Requests that are allowed; rules of one protocol.
  http []CiliumHTTP :: HTTP requests.
  dns []CiliumDNS :: DNS queries.
  kafka []CiliumKafka :: Kafka requests.
  l7proto string :: Name of another protocol.
  l7 []object :: Rules for that protocol.

CiliumHTTP :: HTTP requests; all that is given must match. Path, method and host are extended regular
      expressions for the whole text.
  path string :: The path.
  method string :: The method.
  host string :: The host.
  headers []string :: Headers that must be there, as "Name" or "Name: value".
  headerMatches []CiliumHeader :: Headers, and what is done where they do not match.

CiliumHeader :: A header.
  name! string minlen=1 :: Its name.
  value string :: Its value.
  secret CiliumSecret :: A secret with its value.
  mismatch string enum=LOG|ADD|DELETE|REPLACE :: What is done where it does not match; denied if not given.

CiliumDNS :: DNS queries.
  matchName string maxlen=255 :: The name asked for.
  matchPattern string maxlen=255 :: A pattern of it.

CiliumKafka :: Kafka requests.
  role string enum=produce|consume :: What the client does.
  apiKey string :: The request, as fetch.
  apiVersion string :: Its version.
  clientID string :: The client.
  topic string maxlen=255 :: The topic.

CiliumICMPRule :: ICMP types.
  fields []CiliumICMPField maxitems=40 :: The types.

CiliumICMPField :: An ICMP type.
  family string enum=IPv4|IPv6 default=IPv4 :: Its family.
  type! xintorstring :: Its number or name.

CiliumAuthentication :: Whether the peer must prove who it is.
  mode! string enum=disabled|required|test-always-fail :: How.

CiliumEndpoint :: A pod as the agent of its node sees it.
  status object :: Identity, addresses, policy, state.

CiliumIdentity :: A set of labels and the number that stands for it (its name).
  security-labels! map[string] :: The labels, with their sources.

CiliumNode :: A node as its agent sees it.
  spec object :: Addresses, health, address pools.
  status object :: What the node has used.
"""
