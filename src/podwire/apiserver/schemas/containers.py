"""Schemas of containers, probes, environment, security.

Read by `language`; names, numbers and keys are Kubernetes'.
"""

DEFINITIONS = r"""
Container :: One program that runs in a pod.
    name! string #1 :: Its name, unique in the pod; a DNS label.
    image string #2 :: The image to run.
    command []string #3 :: What to run instead of the image's entry point; $(NAME) is replaced from the
      environment.
    args []string #4 :: Arguments for it; $(NAME) is replaced from the environment.
    workingDir string #5 :: The directory it starts in.
    ports []ContainerPort #6 map=containerPort,protocol merge=containerPort :: Ports it listens on;
      names in this list can be used by services, probes and policies.
    envFrom []EnvFromSource #19 :: Whole ConfigMaps and Secrets as environment variables.
    env []EnvVar #7 map=name merge=name :: Environment variables.
    resources ResourceRequirements #8 :: Resources it asks for and may use at most.
    restartPolicy string #24 :: Always makes an init container a sidecar.
    volumeMounts []VolumeMount #9 map=mountPath merge=mountPath :: Volumes and where they are mounted.
    livenessProbe Probe #10 :: When it fails the container is started again.
    readinessProbe Probe #11 :: While it fails the pod gets no traffic from services.
    startupProbe Probe #22 :: Until it has passed the other probes wait.
    lifecycle Lifecycle #12 :: What to do after the start and before the end.
    terminationMessagePath string #13 default=/dev/termination-log :: File whose content becomes the
      message of its end.
    terminationMessagePolicy string #20 enum=File|FallbackToLogsOnError default=File :: Where that
      message comes from.
    imagePullPolicy string #14 enum=Always|Never|IfNotPresent :: When the image is pulled.
    securityContext SecurityContext #15 :: User, capabilities and limits.
    stdin boolean #16 :: Whether it gets a standard input.
    stdinOnce boolean #17 :: Whether that input ends with its first client.
    tty boolean #18 :: Whether it gets a terminal.

EphemeralContainer :: A container added to a running pod for debugging.
    name! string #1.1 :: Its name.
    image string #1.2 :: The image to run.
    command []string #1.3 :: What to run.
    args []string #1.4 :: Arguments for it.
    workingDir string #1.5 :: The directory it starts in.
    ports []ContainerPort #1.6 map=containerPort,protocol merge=containerPort :: Ports.
    envFrom []EnvFromSource #1.19 :: Whole ConfigMaps and Secrets as environment variables.
    env []EnvVar #1.7 map=name merge=name :: Environment variables.
    resources ResourceRequirements #1.8 :: Resources.
    volumeMounts []VolumeMount #1.9 map=mountPath merge=mountPath :: Volumes and where they are mounted.
    terminationMessagePath string #1.13 :: File of the message of its end.
    terminationMessagePolicy string #1.20 :: Where that message comes from.
    imagePullPolicy string #1.14 :: When the image is pulled.
    securityContext SecurityContext #1.15 :: User, capabilities and limits.
    stdin boolean #1.16 :: Whether it gets a standard input.
    stdinOnce boolean #1.17 :: Whether that input ends with its first client.
    tty boolean #1.18 :: Whether it gets a terminal.
    targetContainerName string #2 :: The container whose processes it should see.

ContainerPort :: A port a container listens on.
    name string #1 :: Name of the port, unique in the pod.
    hostPort integer #2 min=0 max=65535 :: Port of the node that leads here.
    containerPort! integer #3 min=1 max=65535 :: The port.
    protocol string #4 enum=TCP|UDP|SCTP default=TCP :: Its protocol.
    hostIP string #5 :: Address of the node to bind hostPort to.

EnvVar :: An environment variable.
    name! string #1 :: Its name.
    value string #2 :: Its value; $(NAME) is replaced from variables before it.
    valueFrom EnvVarSource #3 :: Where its value comes from.

EnvVarSource :: Where the value of a variable comes from; one of these.
    fieldRef ObjectFieldSelector #1 :: A field of the pod, as metadata.name or status.podIP.
    resourceFieldRef ResourceFieldSelector #2 :: A resource of a container, as limits.cpu.
    configMapKeyRef ConfigMapKeySelector #3 :: A key of a ConfigMap.
    secretKeyRef SecretKeySelector #4 :: A key of a Secret.

ObjectFieldSelector :: A field of the pod.
    apiVersion string #1 default=v1 :: Version the path is written in.
    fieldPath! string #2 :: The field.

ResourceFieldSelector :: A resource of a container.
    containerName string #1 :: The container.
    resource! string #2 :: The resource, as limits.memory.
    divisor quantity #3 :: Unit of the value.

ConfigMapKeySelector :: A key of a ConfigMap.
    name string #1.1 :: The ConfigMap.
    key! string #2 :: The key.
    optional boolean #3 :: Whether it may be missing.

SecretKeySelector :: A key of a Secret.
    name string #1.1 :: The Secret.
    key! string #2 :: The key.
    optional boolean #3 :: Whether it may be missing.

EnvFromSource :: A source of several variables.
    prefix string #1 :: Put before each name.
    configMapRef ConfigMapEnvSource #2 :: A ConfigMap.
    secretRef SecretEnvSource #3 :: A Secret.

ConfigMapEnvSource :: A ConfigMap as variables.
    name string #1.1 :: The ConfigMap.
    optional boolean #2 :: Whether it may be missing.

SecretEnvSource :: A Secret as variables.
    name string #1.1 :: The Secret.
    optional boolean #2 :: Whether it may be missing.

ResourceRequirements :: Resources of a container.
    limits map[quantity] #1 :: At most this much.
    requests map[quantity] #2 :: At least this much.

VolumeMount :: A volume in a container.
    name! string #1 :: The volume.
    readOnly boolean #2 :: Whether it cannot be written.
    recursiveReadOnly string #7 :: Whether mounts below it cannot be written either.
    mountPath! string #3 :: Where it is mounted.
    subPath string #4 :: A path inside the volume to mount instead of its root.
    mountPropagation string #5 :: Whether mounts pass in and out.
    subPathExpr string #6 :: As subPath, with $(NAME) replaced from the environment.

Probe :: A check of a container that is repeated.
    exec ExecAction #1.1 :: Runs a command; exit code 0 is good.
    httpGet HTTPGetAction #1.2 :: Asks by HTTP; 200 to 399 is good.
    tcpSocket TCPSocketAction #1.3 :: Connects; a connection is good.
    grpc GRPCAction #1.4 :: Asks the gRPC health service.
    initialDelaySeconds integer #2 min=0 :: Seconds after the start before the first check.
    timeoutSeconds integer #3 min=0 default=1 :: Seconds a check may take.
    periodSeconds integer #4 min=0 default=10 :: Seconds between checks.
    successThreshold integer #5 min=0 default=1 :: Good checks in a row to be good again.
    failureThreshold integer #6 min=0 default=3 :: Bad checks in a row to have failed.
    terminationGracePeriodSeconds int64 #7 min=1 :: Seconds to end after a failed liveness probe.

ExecAction :: A command to run in the container.
    command []string #1 :: The program and its arguments; no shell.

HTTPGetAction :: An HTTP request.
    path string #1 default=/ :: The path.
    port! intorstring #2 :: Port, by number or by name.
    host string #3 :: Host to connect to; the pod itself if not given.
    scheme string #4 enum=HTTP|HTTPS default=HTTP :: With or without TLS.
    httpHeaders []HTTPHeader #5 :: Headers to send.

HTTPHeader :: A header of a request.
    name! string #1 :: Its name.
    value string #2 :: Its value.

TCPSocketAction :: A TCP connection.
    port! intorstring #1 :: Port, by number or by name.
    host string #2 :: Host to connect to; the pod itself if not given.

GRPCAction :: A gRPC health check.
    port! integer #1 min=1 max=65535 :: The port.
    service string #2 :: The service to ask for.

Lifecycle :: What to do when a container starts and ends.
    postStart LifecycleHandler #1 :: Right after it has started.
    preStop LifecycleHandler #2 :: Before it is told to end.

LifecycleHandler :: Something to do; one of these.
    exec ExecAction #1 :: Run a command.
    httpGet HTTPGetAction #2 :: Send an HTTP request.
    tcpSocket TCPSocketAction #3 :: Deprecated.
    sleep SleepAction #4 :: Wait.

SleepAction :: Waiting.
    seconds! int64 #1 :: How long.

SecurityContext :: User, capabilities and limits of a container.
    capabilities Capabilities #1 :: Capabilities to add and to drop.
    privileged boolean #2 :: Whether it may do what root on the node may.
    runAsUser int64 #4 :: User it runs as.
    runAsGroup int64 #8 :: Group it runs as.
    runAsNonRoot boolean #5 :: Whether running as root is refused.
    readOnlyRootFilesystem boolean #6 :: Whether its root cannot be written.
    allowPrivilegeEscalation boolean #7 :: Whether it may gain more rights.
    procMount string #9 :: How /proc is mounted.
    seccompProfile SeccompProfile #11 :: System calls it may use.
    appArmorProfile AppArmorProfile #12 :: AppArmor profile.
    seLinuxOptions SELinuxOptions #3 :: SELinux labels.

SELinuxOptions :: SELinux labels.
    user string #1 :: User.
    role string #2 :: Role.
    type string #3 :: Type.
    level string #4 :: Level.

SeccompProfile :: A seccomp profile.
    type! string #1 :: Unconfined, RuntimeDefault or Localhost.
    localhostProfile string #2 :: File on the node.

AppArmorProfile :: An AppArmor profile.
    type! string #1 :: Unconfined, RuntimeDefault or Localhost.
    localhostProfile string #2 :: Profile loaded on the node.

Capabilities :: Capabilities.
    add []string #1 :: To add, without CAP_.
    drop []string #2 :: To drop; ALL drops all.

PodSecurityContext :: Users, groups and limits of all containers.
    runAsUser int64 #2 :: User they run as.
    runAsGroup int64 #6 :: Group they run as.
    runAsNonRoot boolean #3 :: Whether running as root is refused.
    supplementalGroups []int64 #4 :: Further groups.
    supplementalGroupsPolicy string #12 :: How those are merged.
    fsGroup int64 #5 :: Group of volumes.
    sysctls []Sysctl #7 :: Kernel parameters of the pod's namespaces.
    fsGroupChangePolicy string #9 :: When volumes are given to that group.
    seccompProfile SeccompProfile #10 :: System calls they may use.
    appArmorProfile AppArmorProfile #11 :: AppArmor profile.
    seLinuxOptions SELinuxOptions #1 :: SELinux labels.

Sysctl :: A kernel parameter.
    name! string #1 :: Its name.
    value! string #2 :: Its value.
"""
