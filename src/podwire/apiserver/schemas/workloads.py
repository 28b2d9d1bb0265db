"""Schemas of Deployments, ReplicaSets, DaemonSets, scale.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
Deployment :: Keeps a number of equal pods running and replaces them step by step when the template
      changes.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! DeploymentSpec #2 :: What is wanted.
    status DeploymentStatus #3 :: What there is.

DeploymentSpec :: What a Deployment should be.
    replicas integer #1 min=0 default=1 :: How many pods.
    selector! LabelSelector #2 :: Which pods belong to it; must match the template's labels and cannot
      change.
    template! PodTemplateSpec #3 :: What the pods look like.
    strategy DeploymentStrategy #4 retain :: How old pods are replaced.
    minReadySeconds integer #5 min=0 :: Seconds a new pod must be ready to count as available.
    revisionHistoryLimit integer #6 min=0 default=10 :: How many old ReplicaSets are kept for kubectl
      rollout undo.
    paused boolean #7 :: Whether changes of the template wait.
    progressDeadlineSeconds integer #9 min=0 default=600 :: Seconds without progress after which it is
      said to have failed.

DeploymentStrategy :: How old pods are replaced.
    type string #1 enum=Recreate|RollingUpdate :: All at once, or step by step.
    rollingUpdate RollingUpdateDeployment #2 :: The steps.

RollingUpdateDeployment :: The steps of a rolling update.
    maxUnavailable intorstring #1 :: How many pods may be missing, a number or a percentage.
    maxSurge intorstring #2 :: How many pods may be too many, a number or a percentage.

DeploymentStatus :: What a Deployment is.
    observedGeneration int64 #1 :: The generation this was judged at.
    replicas integer #2 :: Pods there are.
    updatedReplicas integer #3 :: Pods of the newest template.
    readyReplicas integer #7 :: Pods that are ready.
    availableReplicas integer #4 :: Pods that have been ready for minReadySeconds.
    unavailableReplicas integer #5 :: Pods that are still missing.
    conditions []DeploymentCondition #6 map=type merge=type :: Available, Progressing, ReplicaFailure.
    collisionCount integer #8 :: How often a name for a ReplicaSet was taken.

DeploymentCondition :: One aspect of a Deployment.
    type! string #1 :: Which aspect.
    status! string #2 :: True, False or Unknown.
    lastUpdateTime time #6 :: When it was last judged.
    lastTransitionTime time #7 :: When the status last changed.
    reason string #4 :: A word: why.
    message string #5 :: A sentence for people.

ReplicaSet :: Keeps a number of equal pods running.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! ReplicaSetSpec #2 :: What is wanted.
    status ReplicaSetStatus #3 :: What there is.

ReplicaSetSpec :: What a ReplicaSet should be.
    replicas integer #1 min=0 default=1 :: How many pods.
    minReadySeconds integer #4 min=0 :: Seconds a pod must be ready to count as available.
    selector! LabelSelector #2 :: Which pods belong to it; cannot change.
    template PodTemplateSpec #3 :: What the pods look like.

ReplicaSetStatus :: What a ReplicaSet is.
    replicas integer #1 :: Pods there are.
    fullyLabeledReplicas integer #2 :: Pods with all labels of the template.
    readyReplicas integer #4 :: Pods that are ready.
    availableReplicas integer #5 :: Pods that have been ready for minReadySeconds.
    observedGeneration int64 #3 :: The generation this was judged at.
    conditions []ReplicaSetCondition #6 map=type merge=type :: ReplicaFailure.

ReplicaSetCondition :: One aspect of a ReplicaSet.
    type! string #1 :: Which aspect.
    status! string #2 :: True, False or Unknown.
    lastTransitionTime time #3 :: When the status last changed.
    reason string #4 :: A word: why.
    message string #5 :: A sentence for people.

DaemonSet :: Keeps one pod running on each node that fits.
    metadata ObjectMeta #1 :: Standard metadata.
    spec! DaemonSetSpec #2 :: What is wanted.
    status DaemonSetStatus #3 :: What there is.

DaemonSetSpec :: What a DaemonSet should be.
    selector! LabelSelector #1 :: Which pods belong to it; cannot change.
    template! PodTemplateSpec #2 :: What the pods look like.
    updateStrategy DaemonSetUpdateStrategy #3 :: How old pods are replaced.
    minReadySeconds integer #4 min=0 :: Seconds a pod must be ready to count as available.
    revisionHistoryLimit integer #6 min=0 default=10 :: How many old revisions are kept.

DaemonSetUpdateStrategy :: How old pods are replaced.
    type string #1 enum=OnDelete|RollingUpdate :: By hand, or step by step.
    rollingUpdate RollingUpdateDaemonSet #2 :: The steps.

RollingUpdateDaemonSet :: The steps of a rolling update.
    maxUnavailable intorstring #1 :: How many pods may be missing, a number or a percentage.
    maxSurge intorstring #2 :: How many nodes may have two pods.

DaemonSetStatus :: What a DaemonSet is.
    currentNumberScheduled integer #1 :: Nodes that have the pod and should.
    numberMisscheduled integer #2 :: Nodes that have the pod and should not.
    desiredNumberScheduled integer #3 :: Nodes that should have the pod.
    numberReady integer #4 :: Nodes whose pod is ready.
    observedGeneration int64 #5 :: The generation this was judged at.
    updatedNumberScheduled integer #6 :: Nodes whose pod is of the newest template.
    numberAvailable integer #7 :: Nodes whose pod is available.
    numberUnavailable integer #8 :: Nodes whose pod is not.
    collisionCount integer #9 :: How often a name was taken.
    conditions []DaemonSetCondition #10 map=type merge=type :: Conditions.

DaemonSetCondition :: One aspect of a DaemonSet.
    type! string #1 :: Which aspect.
    status! string #2 :: True, False or Unknown.
    lastTransitionTime time #3 :: When the status last changed.
    reason string #4 :: A word: why.
    message string #5 :: A sentence for people.

ControllerRevision :: A past state of a DaemonSet's template.
    metadata ObjectMeta #1 :: Standard metadata.
    data object #2 :: The state.
    revision! int64 #3 :: Its number.

Scale :: How many pods something has and should have.
    metadata ObjectMeta #1 :: Standard metadata.
    spec ScaleSpec #2 :: How many there should be.
    status ScaleStatus #3 :: How many there are.

ScaleSpec :: How many there should be.
    replicas integer #1 min=0 :: The number.

ScaleStatus :: How many there are.
    replicas integer #1 :: The number.
    selector string #2 :: Which pods they are, as text.
"""
