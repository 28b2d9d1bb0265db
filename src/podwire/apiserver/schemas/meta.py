"""Schemas of metadata and what all kinds share.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
ObjectMeta :: What every object has: its name, labels, owners and history.
    name string #1 :: Name, unique among objects of the kind in the namespace. It cannot be changed.
    generateName string #2 :: Prefix of a name the server completes with random characters when no name
      is given.
    namespace string #3 :: The namespace the object lives in. It cannot be changed.
    selfLink string #4 :: Deprecated; never set.
    uid string #5 :: Identifier of this very object, set by the server; another object of the same name
      has another one.
    resourceVersion string #6 :: Opaque version of the object, set by the server; a change that names an
      old one is refused.
    generation int64 #7 :: Counts changes of the desired state; set by the server.
    creationTimestamp time #8 :: When the object was created; set by the server.
    deletionTimestamp time #9 :: When the object is to be gone; set by the server when somebody deletes
      it.
    deletionGracePeriodSeconds int64 #10 :: Seconds the object may take to end, set together with
      deletionTimestamp.
    labels map[string] #11 :: Keys and values to organize and select objects by.
    annotations map[string] #12 :: Keys and values that programs attach; they are not selected by.
    ownerReferences []OwnerReference #13 map=uid merge=uid :: Objects this one depends on; it is deleted
      when all of them are gone.
    finalizers []string #14 mergeset set :: Names that must be removed, by whoever put them, before the
      object is really deleted.
    managedFields []ManagedFieldsEntry #17 :: Which manager set which fields; kept by the server.

OwnerReference :: An object that owns this one, in the same namespace or of a cluster-scoped kind.
    apiVersion! string #5 :: API version of the owner.
    kind! string #1 :: Kind of the owner.
    name! string #3 :: Name of the owner.
    uid! string #4 :: UID of the owner.
    controller boolean #6 :: Whether this owner is the controller; at most one is.
    blockOwnerDeletion boolean #7 :: Whether a foreground deletion of the owner waits for this object.

ManagedFieldsEntry :: One manager and the fields it has set.
    manager string #1 :: Name of the manager.
    operation string #2 enum=Apply|Update :: How the fields were set.
    apiVersion string #3 :: Version of the API the fields are written in.
    time time #4 :: When the manager last changed something.
    fieldsType string #6 :: Always FieldsV1.
    fieldsV1 object #7 :: The fields, as a tree of their names.
    subresource string #8 :: The subresource through which the fields were set.

LabelSelector :: Selects objects by their labels; all requirements must hold. An empty selector selects
      everything.
    matchLabels map[string] #1 :: Labels an object must have with exactly these values.
    matchExpressions []LabelSelectorRequirement #2 :: Requirements an object must fulfil.

LabelSelectorRequirement :: A requirement on one label.
    key! string #1 :: The label's key.
    operator! string #2 enum=In|NotIn|Exists|DoesNotExist :: How the label relates to the values.
    values []string #3 :: Values for In and NotIn.

Condition :: One aspect of the state of an object.
    type! string #1 :: Which aspect.
    status! string #2 enum=True|False|Unknown :: Whether it holds.
    observedGeneration int64 #3 :: The generation of the object this was judged at.
    lastTransitionTime! time #4 :: When the status last changed.
    reason! string #5 :: A word for machines: why.
    message string #6 :: A sentence for people.

DeleteOptions :: How an object is to be deleted.
    gracePeriodSeconds int64 #1 :: Seconds the object may take to end.
    preconditions Preconditions #2 :: What must be true of the object.
    orphanDependents boolean #3 :: Deprecated: leave what the object owns.
    propagationPolicy string #4 :: Background, Foreground or Orphan.
    dryRun []string #5 :: All: do everything but store it.

Preconditions :: What must be true of an object that is to be changed.
    uid string #1 :: Its UID.
    resourceVersion string #2 :: Its resourceVersion.
"""
