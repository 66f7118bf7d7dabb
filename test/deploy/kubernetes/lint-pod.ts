/** Checks one pod: internal references, the restricted profile, and its numbers against the code. */
import { loadConfig } from '../../../src/config/load.js'
import { podMemory } from '../../../src/sharing/pod-memory.js'
import { type Container, matches, type Pod, type Probe } from './pods.js'
import { quantity } from './quantity.js'

/** Time after the last worker has exited: admin port, segments, process. */
const CLOSING_SECONDS = 5
const ADMIN_PATHS = ['/v2/health/live', '/v2/health/ready']

function allContainers({ spec }: Pod): Container[] {
  return [...spec.initContainers, ...spec.containers]
}

export function isOwnPort(pod: Pod, port: string | number): boolean {
  return pod.spec.containers.some(({ ports }) =>
    ports.some(({ name, containerPort }) => name === port || containerPort === port),
  )
}

function nameProblems(pod: Pod): string[] {
  const volumes = pod.spec.volumes.map(({ name }) => name)
  const mounts = allContainers(pod).flatMap(({ volumeMounts }) => volumeMounts.map(({ name }) => name))
  const containers = pod.spec.containers.map(({ name }) => name)
  const asked = pod.spec.containers.flatMap(({ env }) =>
    env.flatMap(({ valueFrom }) => valueFrom?.resourceFieldRef?.containerName ?? []),
  )
  return [
    ...mounts.filter((name) => !volumes.includes(name)).map((name) => `no volume ${name}`),
    ...volumes.filter((name) => !mounts.includes(name)).map((name) => `the volume ${name} is not mounted`),
    ...asked.filter((name) => !containers.includes(name)).map((name) => `no container ${name}`),
    ...pod.spec.topologySpreadConstraints
      .filter(({ labelSelector }) => !matches(labelSelector.matchLabels, pod.labels))
      .map(({ labelSelector }) => `spread over other pods: ${JSON.stringify(labelSelector)}`),
  ]
}

/** Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/, with additional rules. */
function profileProblems(pod: Pod): string[] {
  const { securityContext, automountServiceAccountToken } = pod.spec
  const problems: string[] = []
  if (securityContext?.runAsNonRoot !== true || securityContext.runAsUser === 0)
    problems.push('may run as root')
  if (securityContext?.seccompProfile?.type !== 'RuntimeDefault')
    problems.push('no seccomp profile RuntimeDefault')
  if (automountServiceAccountToken !== false) problems.push('mounts a token of the API server')
  for (const { name, securityContext: own } of allContainers(pod)) {
    if (own?.allowPrivilegeEscalation !== false) problems.push(`${name} may gain privileges`)
    if (own?.capabilities?.drop.includes('ALL') !== true) problems.push(`${name} keeps capabilities`)
    if (own?.readOnlyRootFilesystem !== true) problems.push(`${name} can write to its root`)
  }
  return problems
}

function resourceProblems({ name, resources }: Container): string[] {
  return ['cpu', 'memory'].flatMap((resource) => {
    const limit = quantity(resources?.limits[resource])
    const request = quantity(resources?.requests[resource])
    if (limit === null || request === null) return [`${name}: expected a request and a limit of ${resource}`]
    return request > limit ? [`${name}: requests more ${resource} than its limit`] : []
  })
}

function configOf({ env }: Container, cpus: number) {
  const flags = env.flatMap(({ name, value, valueFrom }) => {
    const { resource, divisor = '1' } = valueFrom?.resourceFieldRef ?? {}
    const amount = resource === 'limits.cpu' ? String(Math.ceil(cpus / (quantity(divisor) ?? 1))) : ''
    return [
      `--${name
        .replace(/^ONECOPY_/, '')
        .toLowerCase()
        .replaceAll('_', '-')}`,
      value ?? amount,
    ]
  })
  // As flags, so that unknown ones are rejected.
  return loadConfig(flags, {})
}

function probeProblems(pod: Pod, serves: Container, adminPort: number): string[] {
  const probes = {
    startupProbe: serves.startupProbe,
    readinessProbe: serves.readinessProbe,
    livenessProbe: serves.livenessProbe,
  }
  return Object.entries(probes).flatMap(([kind, probe]): string[] => {
    if (probe === undefined) return [`no ${kind}`]
    // Asked for by a component: a worker answers.
    if (probe.grpc !== undefined)
      return portNumber(serves, 'grpc') === probe.grpc.port
        ? []
        : [`${kind}: no gRPC port ${probe.grpc.port}`]
    const { path = '', port = '' } = probe.httpGet ?? {}
    const expected = kind === 'livenessProbe' ? '/v2/health/live' : '/v2/health/ready'
    const problems: string[] = []
    if (!isOwnPort(pod, port)) problems.push(`${kind}: no port ${port}`)
    else if (portNumber(serves, port) !== adminPort) problems.push(`${kind}: waits for inference`)
    if (!ADMIN_PATHS.includes(path) || path !== expected)
      problems.push(`${kind}: expected ${expected}, got ${path}`)
    return problems
  })
}

function portNumber({ ports }: Container, port: string | number): number | undefined {
  return ports.find((one) => one.name === port || one.containerPort === port)?.containerPort
}

const lasts = ({ periodSeconds, failureThreshold }: Probe) => periodSeconds * failureThreshold

function timeProblems(pod: Pod, serves: Container, config: ReturnType<typeof loadConfig>): string[] {
  const { compileTimeoutMs, bootTimeoutMs, drainTimeoutMs } = config
  const grace = pod.spec.terminationGracePeriodSeconds ?? 30
  const preStop = serves.lifecycle?.preStop?.sleep?.seconds ?? 0
  const ends = preStop + drainTimeoutMs / 1000 + CLOSING_SECONDS
  const starts = (compileTimeoutMs + bootTimeoutMs) / 1000
  const problems: string[] = []
  if (preStop === 0) problems.push('no preStop: requests that are still routed to it are lost')
  if (grace < ends)
    problems.push(`killed after ${grace} s, exits after up to ${ends} s (preStop ${preStop} s)`)
  if (serves.startupProbe && lasts(serves.startupProbe) < starts)
    problems.push(`startup fails after ${lasts(serves.startupProbe)} s, a start takes up to ${starts} s`)
  if (serves.readinessProbe && lasts(serves.readinessProbe) > 1)
    problems.push(`is removed only ${lasts(serves.readinessProbe)} s after it is not ready`)
  return problems
}

function memoryProblems(pod: Pod, serves: Container, config: ReturnType<typeof loadConfig>): string[] {
  const bytesOf = (name: string) => Number(pod.annotations[`onecopy/${name}-bytes`] ?? Number.NaN)
  const model = {
    segmentBytes: bytesOf('segment'),
    weightsBytes: bytesOf('weights'),
    privateBytes: bytesOf('worker-private'),
  }
  if (Object.values(model).some(Number.isNaN)) return ['does not state the model of its sizes']
  const mount = serves.volumeMounts.find(({ mountPath }) => mountPath === config.segmentDir)
  const shm = pod.spec.volumes.find(({ name }) => name === mount?.name)?.emptyDir
  if (shm?.medium !== 'Memory') return [`${config.segmentDir} is not a volume in memory: 64 MiB, or a disk`]
  const sizeLimit = quantity(shm.sizeLimit) ?? 0
  const limit = quantity(serves.resources?.limits.memory) ?? 0
  const { sizeLimitBytes, memoryBytes } = podMemory(model, config.workers)
  const problems: string[] = []
  if (sizeLimit < sizeLimitBytes)
    problems.push(`sizeLimit ${sizeLimit}, but two generations need ${sizeLimitBytes} bytes`)
  if (sizeLimit >= limit) problems.push(`sizeLimit ${sizeLimit} is not below the memory limit ${limit}`)
  if (limit < memoryBytes)
    problems.push(`memory limit ${limit}, but ${config.workers} workers need ${memoryBytes} bytes`)
  return problems
}

function folderProblems(
  pod: Pod,
  serves: Container,
  { cacheDir, modelPaths }: ReturnType<typeof loadConfig>,
): string[] {
  const cache = serves.volumeMounts.find(({ mountPath }) => mountPath === cacheDir)
  const volume = pod.spec.volumes.find(({ name }) => name === cache?.name)
  const problems: string[] = []
  if (cache === undefined || cache.readOnly === true) problems.push(`nothing writable at ${cacheDir}`)
  // A cache in memory doubles the memory use, and raw weights cannot be released.
  if (volume?.emptyDir?.medium === 'Memory') problems.push('the compile cache is in memory')
  const models = serves.volumeMounts.find(({ mountPath }) => modelPaths.includes(mountPath))
  if (models !== undefined && models.readOnly !== true) problems.push('the model repository is writable')
  return problems
}

function servingProblems(pod: Pod, serves: Container): string[] {
  const cpus = quantity(serves.resources?.limits.cpu)
  if (cpus === null) return ['no cpu limit: there would be as many workers as CPUs of the node']
  let config: ReturnType<typeof loadConfig>
  try {
    config = configOf(serves, cpus)
  } catch (thrown) {
    return [`its environment is invalid: ${thrown instanceof Error ? thrown.message : thrown}`]
  }
  const numbers = serves.ports.map(({ containerPort }) => containerPort)
  return [
    ...(config.workers === Math.ceil(cpus) ? [] : [`${config.workers} workers on ${cpus} CPUs`]),
    ...[config.port, config.adminPort]
      .filter((port) => !numbers.includes(port))
      .map((port) => `no port ${port}`),
    ...[config.host, config.adminHost]
      .filter((host) => host !== '0.0.0.0')
      .map((host) => `listens only on ${host}`),
    ...probeProblems(pod, serves, config.adminPort),
    ...timeProblems(pod, serves, config),
    ...memoryProblems(pod, serves, config),
    ...folderProblems(pod, serves, config),
  ]
}

export function podProblems(pod: Pod): string[] {
  const { serves } = pod
  return [
    ...nameProblems(pod),
    ...profileProblems(pod),
    ...allContainers(pod).flatMap(resourceProblems),
    ...(serves === undefined ? ['no serving container'] : servingProblems(pod, serves)),
  ].map((problem) => `${pod.where}: ${problem}`)
}
