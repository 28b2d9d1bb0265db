"""Schemas of volumes.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
Volume :: A volume of a pod.
    name! string #1 :: Its name, unique in the pod.
    hostPath HostPathVolumeSource #2.1 :: A path of the node.
    emptyDir EmptyDirVolumeSource #2.2 :: A directory that lives as long as the pod.
    secret SecretVolumeSource #2.6 :: A Secret as files.
    downwardAPI DownwardAPIVolumeSource #2.16 :: Fields of the pod as files.
    configMap ConfigMapVolumeSource #2.19 :: A ConfigMap as files.
    projected ProjectedVolumeSource #2.26 :: Several of these in one directory.
    persistentVolumeClaim PersistentVolumeClaimVolumeSource #2.10 :: A claim; there is no storage in a
      sandbox to give to it.
    csi object #2.28 :: A volume of a CSI driver; there is none in a sandbox.
    nfs object #2.7 :: An NFS share; not mounted in a sandbox.
    ephemeral object #2.29 :: A claim made with the pod; there is no storage in a sandbox to give to it.

PersistentVolumeClaimVolumeSource :: A claim.
    claimName! string #1 :: The claim.
    readOnly boolean #2 :: Whether it cannot be written.

EmptyDirVolumeSource :: A directory that lives as long as the pod.
    medium string #1 :: Empty, or Memory.
    sizeLimit quantity #2 :: At most this much.

HostPathVolumeSource :: A path of the node.
    path! string #1 :: The path.
    type string #2 :: What must be there, as Directory or FileOrCreate.

ConfigMapVolumeSource :: A ConfigMap as files.
    name string #1.1 :: The ConfigMap.
    items []KeyToPath #2 :: Which keys become which files; all of them if not given.
    defaultMode integer #3 min=0 max=511 :: Mode of the files.
    optional boolean #4 :: Whether it may be missing.

SecretVolumeSource :: A Secret as files.
    secretName string #1 :: The Secret.
    items []KeyToPath #2 :: Which keys become which files; all of them if not given.
    defaultMode integer #3 min=0 max=511 :: Mode of the files.
    optional boolean #4 :: Whether it may be missing.

KeyToPath :: A key as a file.
    key! string #1 :: The key.
    path! string #2 :: The file, relative.
    mode integer #3 min=0 max=511 :: Its mode.

ProjectedVolumeSource :: Several sources in one directory.
    sources []VolumeProjection #1 :: The sources.
    defaultMode integer #2 min=0 max=511 :: Mode of the files.

VolumeProjection :: One source; one of these.
    secret SecretProjection #1 :: A Secret.
    downwardAPI DownwardAPIProjection #2 :: Fields of the pod.
    configMap ConfigMapProjection #3 :: A ConfigMap.
    serviceAccountToken ServiceAccountTokenProjection #4 :: A token of the pod's service account.

DownwardAPIVolumeSource :: Fields of the pod as files.
    items []DownwardAPIVolumeFile #1 :: Which field becomes which file.
    defaultMode integer #2 min=0 max=511 :: Mode of the files.

DownwardAPIVolumeFile :: A field as a file.
    path! string #1 :: The file, relative.
    fieldRef ObjectFieldSelector #2 :: A field of the pod.
    resourceFieldRef ResourceFieldSelector #3 :: A resource of a container.
    mode integer #4 min=0 max=511 :: Its mode.

DownwardAPIProjection :: Fields of the pod as files.
    items []DownwardAPIVolumeFile #1 :: Which field becomes which file.

ConfigMapProjection :: A ConfigMap as files.
    name string #1.1 :: The ConfigMap.
    items []KeyToPath #2 :: Which keys become which files.
    optional boolean #4 :: Whether it may be missing.

SecretProjection :: A Secret as files.
    name string #1.1 :: The Secret.
    items []KeyToPath #2 :: Which keys become which files.
    optional boolean #4 :: Whether it may be missing.

ServiceAccountTokenProjection :: A token as a file.
    audience string #1 :: Who it will be shown to.
    expirationSeconds int64 #2 :: How long it is valid.
    path! string #3 :: The file, relative.
"""
