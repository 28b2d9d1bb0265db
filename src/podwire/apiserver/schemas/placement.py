"""Schemas of where pods run and how they resolve names.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
Affinity :: Where a pod may and should run.
    nodeAffinity NodeAffinity #1 :: By labels of nodes.
    podAffinity PodAffinity #2 :: Near these pods.
    podAntiAffinity PodAntiAffinity #3 :: Away from these pods.

NodeAffinity :: Which nodes a pod may and should run on.
    requiredDuringSchedulingIgnoredDuringExecution NodeSelector #1 :: What a node must fulfil.
    preferredDuringSchedulingIgnoredDuringExecution []PreferredSchedulingTerm #2 :: What it should.

NodeSelector :: Selects nodes; one of the terms must hold.
    nodeSelectorTerms! []NodeSelectorTerm #1 :: The terms.

NodeSelectorTerm :: Requirements that must all hold; an empty term selects nothing.
    matchExpressions []NodeSelectorRequirement #1 :: On labels.
    matchFields []NodeSelectorRequirement #2 :: On fields (metadata.name).

NodeSelectorRequirement :: A requirement on a label or field of a node.
    key! string #1 :: The label's key or the field.
    operator! string #2 enum=In|NotIn|Exists|DoesNotExist|Gt|Lt :: How it relates to the values.
    values []string #3 :: The values.

PreferredSchedulingTerm :: A wish with a weight.
    weight! integer #1 min=1 max=100 :: Its weight.
    preference! NodeSelectorTerm #2 :: The wish.

PodAffinity :: Pods to be near of.
    requiredDuringSchedulingIgnoredDuringExecution []PodAffinityTerm #1 :: What must hold.
    preferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm #2 :: What should.

PodAntiAffinity :: Pods to be away from.
    requiredDuringSchedulingIgnoredDuringExecution []PodAffinityTerm #1 :: What must hold.
    preferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm #2 :: What should.

PodAffinityTerm :: Pods, and what near means.
    labelSelector LabelSelector #1 :: Which pods.
    namespaces []string #2 :: In which namespaces; the pod's own if nothing is given.
    topologyKey! string #3 :: Nodes that have the same value of this label are near.
    namespaceSelector LabelSelector #4 :: In which namespaces, by their labels.
    matchLabelKeys []string #5 :: Labels whose value must be the pod's own.
    mismatchLabelKeys []string #6 :: Labels whose value must not be the pod's own.

WeightedPodAffinityTerm :: A wish with a weight.
    weight! integer #1 min=1 max=100 :: Its weight.
    podAffinityTerm! PodAffinityTerm #2 :: The wish.

Toleration :: A taint a pod can live with.
    key string #1 :: Key of the taint; empty with Exists is all.
    operator string #2 enum=Exists|Equal :: Equal (the default) or Exists.
    value string #3 :: Value of the taint.
    effect string #4 enum=NoSchedule|PreferNoSchedule|NoExecute :: Effect of the taint; empty is all.
    tolerationSeconds int64 #5 :: How long NoExecute is tolerated.

TopologySpreadConstraint :: How pods spread.
    maxSkew! integer #1 min=1 :: How uneven it may be.
    topologyKey! string #2 :: Label of nodes that makes the parts.
    whenUnsatisfiable! string #3 enum=DoNotSchedule|ScheduleAnyway :: What to do where it cannot be.
    labelSelector LabelSelector #4 :: Which pods are counted.
    minDomains integer #5 :: How many parts there should be.
    nodeAffinityPolicy string #6 :: Whether node affinity counts.
    nodeTaintsPolicy string #7 :: Whether taints count.
    matchLabelKeys []string #8 :: Labels whose value must be the pod's own.

HostAlias :: A line of /etc/hosts.
    ip! string #1 :: The address.
    hostnames []string #2 :: The names.

PodDNSConfig :: More for resolv.conf.
    nameservers []string #1 :: Name servers.
    searches []string #2 :: Search domains.
    options []PodDNSConfigOption #3 :: Options.

PodDNSConfigOption :: An option of resolv.conf.
    name string #1 :: Its name.
    value string #2 :: Its value.

PodReadinessGate :: A condition that must be true.
    conditionType! string #1 :: Its type.
"""
