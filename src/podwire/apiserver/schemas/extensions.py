"""Schemas of CustomResourceDefinitions.

Read by `language`; names are Kubernetes'.
"""

DEFINITIONS = r"""
CustomResourceDefinition :: Adds a kind to the API.
  metadata ObjectMeta :: Standard metadata; the name is <plural>.<group>.
  spec! CustomResourceDefinitionSpec :: What kind.
  status CustomResourceDefinitionStatus :: Whether it is served.

CustomResourceDefinitionSpec :: A kind.
  group! string :: Its API group.
  names! CustomResourceDefinitionNames :: Its names.
  scope! string enum=Namespaced|Cluster :: Whether its objects live in namespaces.
  versions! []CustomResourceDefinitionVersion minitems=1 :: Its versions; one of them is stored.
  conversion CustomResourceConversion :: How one version becomes another.
  preserveUnknownFields boolean :: Deprecated; must be false.

CustomResourceDefinitionNames :: Names of a kind.
  plural! string :: As in the URL, lower case.
  singular string :: As people type it, lower case.
  shortNames []string :: Abbreviations for kubectl.
  kind! string :: As in manifests.
  listKind string :: Kind of its lists.
  categories []string :: Groups of kinds it is shown with, as all.

CustomResourceDefinitionVersion :: A version of a kind.
  name! string :: As v1 or v1beta1.
  served! boolean :: Whether it is served.
  storage! boolean :: Whether objects are stored in it; exactly one is.
  deprecated boolean :: Whether clients are warned.
  deprecationWarning string :: What they are told.
  schema CustomResourceValidation :: What its objects look like.
  subresources CustomResourceSubresources :: Its subresources.
  additionalPrinterColumns []CustomResourceColumnDefinition :: What kubectl get shows.
  selectableFields []SelectableField :: Fields that field selectors may use.

CustomResourceValidation :: What objects look like.
  openAPIV3Schema JSONSchemaProps :: A structural OpenAPI v3 schema.

CustomResourceSubresources :: Subresources of a kind.
  status object :: The status is written apart.
  scale CustomResourceSubresourceScale :: It can be scaled.

CustomResourceSubresourceScale :: Where the numbers are.
  specReplicasPath! string :: Path of the wanted number.
  statusReplicasPath! string :: Path of the present number.
  labelSelectorPath string :: Path of the selector as text.

CustomResourceColumnDefinition :: A column of kubectl get.
  name! string :: Its title.
  type! string :: Its type.
  format string :: Its format.
  description string :: What it shows.
  priority integer :: Above 0: only with -o wide.
  jsonPath! string :: Where the value is.

SelectableField :: A field that field selectors may use.
  jsonPath! string :: Where it is.

CustomResourceConversion :: How one version becomes another.
  strategy! string enum=None :: None: only apiVersion changes. Webhooks are not supported.

CustomResourceDefinitionStatus :: Whether a kind is served.
  conditions []CustomResourceDefinitionCondition map=type :: Established, NamesAccepted.
  acceptedNames CustomResourceDefinitionNames :: Names it is served under.
  storedVersions []string :: Versions objects may be stored in.

CustomResourceDefinitionCondition :: One aspect of a definition.
  type! string :: Which aspect.
  status! string :: True, False or Unknown.
  lastTransitionTime time :: When the status last changed.
  reason string :: A word: why.
  message string :: A sentence for people.

JSONSchemaProps :: A node of a structural schema.
  id string :: Not used.
  $schema string :: Not used.
  $ref string :: Not supported.
  description string :: What it is.
  type string enum=object|array|string|integer|number|boolean| :: Its type.
  format string :: Its format.
  title string :: A title.
  default any :: Value where none is given.
  maximum number :: At most.
  exclusiveMaximum boolean :: Whether less than the maximum is meant.
  minimum number :: At least.
  exclusiveMinimum boolean :: Whether more than the minimum is meant.
  maxLength int64 :: At most so many characters.
  minLength int64 :: At least so many characters.
  pattern string :: A regular expression the text must match.
  maxItems int64 :: At most so many items.
  minItems int64 :: At least so many items.
  uniqueItems boolean :: Not supported.
  multipleOf number :: A number it must be a multiple of.
  enum []any :: Values it may have.
  maxProperties int64 :: At most so many members.
  minProperties int64 :: At least so many members.
  required []string :: Members that must be given.
  items any :: Schema of the items.
  allOf []JSONSchemaProps :: All of these must hold.
  oneOf []JSONSchemaProps :: Exactly one of these must hold.
  anyOf []JSONSchemaProps :: One of these must hold.
  not JSONSchemaProps :: This must not hold.
  properties map[JSONSchemaProps] :: Schemas of the members.
  additionalProperties any :: Schema of further members, or whether there may be any.
  patternProperties map[JSONSchemaProps] :: Not supported.
  dependencies object :: Not supported.
  additionalItems any :: Not supported.
  definitions object :: Not supported.
  externalDocs object :: Where more is written.
  example any :: An example.
  nullable boolean :: Whether null is a value.
  x-kubernetes-preserve-unknown-fields boolean :: Whether members that are not declared are kept.
  x-kubernetes-embedded-resource boolean :: Whether it is a whole object with kind and metadata.
  x-kubernetes-int-or-string boolean :: Whether it is a number or text.
  x-kubernetes-list-map-keys []string :: Fields that make an item of the list unique.
  x-kubernetes-list-type string enum=atomic|set|map :: How a list is merged.
  x-kubernetes-map-type string enum=atomic|granular :: How a map is merged.
  x-kubernetes-validations []object :: Rules in CEL; stored, but not evaluated here.
"""
