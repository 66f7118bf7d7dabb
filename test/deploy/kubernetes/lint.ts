/**
 * Checks that schemas cannot express: enumerations, undefined references, and numbers that must match each
 * other and the code.
 */
import { isOwnPort, podProblems } from './lint-pod.js'
import { type Labels, matches, type Pod, podsOf } from './pods.js'
import { quantity } from './quantity.js'
import type { Manifest } from './schemas.js'

/** Enumerations that the schemas define as plain strings, by key. */
const WORDS: Record<string, readonly string[]> = {
  imagePullPolicy: ['Always', 'IfNotPresent', 'Never'],
  pullPolicy: ['Always', 'IfNotPresent', 'Never'],
  whenUnsatisfiable: ['DoNotSchedule', 'ScheduleAnyway'],
  medium: ['', 'Memory', 'HugePages'],
  fsGroupChangePolicy: ['Always', 'OnRootMismatch'],
  unhealthyPodEvictionPolicy: ['AlwaysAllow', 'IfHealthyBudget'],
  accessModes: ['ReadWriteOnce', 'ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOncePod'],
  policyTypes: ['Ingress', 'Egress'],
  protocol: ['TCP', 'UDP', 'SCTP'],
  resource: ['limits.cpu', 'limits.memory', 'requests.cpu', 'requests.memory'],
  topologyKey: ['topology.kubernetes.io/zone', 'kubernetes.io/hostname'],
  'serving.kserve.io/deploymentMode': ['Standard', 'Knative'],
}
const QUANTITIES = ['cpu', 'memory', 'storage', 'sizeLimit', 'averageValue', 'ephemeral-storage']

function* entriesOf(value: unknown, path = ''): Generator<{ key: string; value: unknown; path: string }> {
  if (typeof value !== 'object' || value === null) return
  for (const [key, inner] of Object.entries(value)) {
    const at = `${path}/${key}`
    if (!Array.isArray(value)) yield { key, value: inner, path: at }
    yield* entriesOf(inner, at)
  }
}

function wordProblems(manifest: Manifest): string[] {
  const where = `${manifest.kind} ${manifest.metadata.name}`
  return [...entriesOf(manifest)].flatMap(({ key, value, path }) => {
    const words = WORDS[key]
    const given = Array.isArray(value) ? value : [value]
    if (words !== undefined && given.every((one) => typeof one === 'string'))
      return given
        .filter((one) => !words.includes(one))
        .map((one) => `${where}${path}: expected one of ${words.join(', ')}, got ${one}`)
    const isScalar = typeof value === 'string' || typeof value === 'number'
    if (QUANTITIES.includes(key) && isScalar && quantity(value) === null)
      return [`${where}${path}: expected a quantity, got ${value}`]
    return []
  })
}

function valueAt(value: unknown, ...path: readonly (string | number)[]): unknown {
  let at = value
  for (const key of path) at = (at as Record<string | number, unknown> | undefined)?.[key]
  return at
}

const SELECTORS: Record<string, readonly string[]> = {
  Service: ['spec', 'selector'],
  Deployment: ['spec', 'selector', 'matchLabels'],
  PodDisruptionBudget: ['spec', 'selector', 'matchLabels'],
  NetworkPolicy: ['spec', 'podSelector', 'matchLabels'],
  PodMonitor: ['spec', 'selector', 'matchLabels'],
}

function selectorProblems(manifest: Manifest, pods: readonly Pod[]): string[] {
  const path = SELECTORS[manifest.kind]
  if (path === undefined) return []
  const where = `${manifest.kind} ${manifest.metadata.name}`
  const selector = valueAt(manifest, ...path) as Labels | undefined
  const pod = selector && pods.find(({ labels }) => matches(selector, labels))
  if (pod === undefined) return [`${where}: its selector ${JSON.stringify(selector)} matches no pod`]
  return portsNamedBy(manifest)
    .filter((port) => !isOwnPort(pod, port))
    .map((port) => `${where}: no container of ${pod.where} has the port ${port}`)
}

function portsNamedBy(manifest: Manifest): (string | number)[] {
  const key = { Service: 'targetPort', PodMonitor: 'port', NetworkPolicy: 'port' }[manifest.kind]
  const from = manifest.kind === 'NetworkPolicy' ? valueAt(manifest, 'spec', 'ingress') : manifest.spec
  return [...entriesOf(from)]
    .filter((entry) => entry.key === key)
    .map(({ value }) => value as string | number)
}

const SCALERS = ['HorizontalPodAutoscaler', 'ScaledObject']

function scalerProblems(manifests: readonly Manifest[]): string[] {
  const scalers = manifests.filter(({ kind }) => SCALERS.includes(kind))
  const targets = scalers.map((scaler) => `${valueAt(scaler, 'spec', 'scaleTargetRef', 'name')}`)
  const problems = scalers.flatMap((scaler, i) => {
    const where = `${scaler.kind} ${scaler.metadata.name}`
    const target = manifests.find(
      ({ kind, metadata }) => kind === 'Deployment' && metadata.name === targets[i],
    )
    if (target === undefined) return [`${where}: no Deployment ${targets[i]} to scale`]
    if (valueAt(target, 'spec', 'replicas') !== undefined)
      return [`${where}: the Deployment ${targets[i]} also sets replicas: every apply would undo the scaling`]
    const [low, high] =
      scaler.kind === 'ScaledObject' ? ['minReplicaCount', 'maxReplicaCount'] : ['minReplicas', 'maxReplicas']
    const [least, most] = [low, high].map((key) => Number(valueAt(scaler, 'spec', key as string)))
    return (least ?? 0) <= (most ?? 0) ? [] : [`${where}: from ${least} to ${most} replicas`]
  })
  if (new Set(targets).size < targets.length)
    problems.push(`${targets[0]} is scaled by ${scalers.map(({ kind }) => kind).join(' and ')}: only one may`)
  return problems
}

function claimProblems(manifests: readonly Manifest[], pods: readonly Pod[]): string[] {
  const claims = manifests
    .filter(({ kind }) => kind === 'PersistentVolumeClaim')
    .map((one) => one.metadata.name)
  return pods.flatMap(({ where, spec }) =>
    spec.volumes
      .map(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName)
      .filter((name) => name !== undefined && !claims.includes(name))
      .map((name) => `${where}: no PersistentVolumeClaim ${name}`),
  )
}

/** A rollout must not fail while its pods may still be starting. */
function rolloutProblems(manifests: readonly Manifest[], pods: readonly Pod[]): string[] {
  return pods.flatMap(({ where, owner, serves }) => {
    const deployment = manifests.find(
      ({ kind, metadata }) => kind === owner.kind && metadata.name === owner.name,
    )
    if (owner.kind !== 'Deployment' || serves?.startupProbe === undefined) return []
    const deadline = Number(valueAt(deployment, 'spec', 'progressDeadlineSeconds') ?? 600)
    const { periodSeconds, failureThreshold } = serves.startupProbe
    const starts = periodSeconds * failureThreshold
    return deadline > starts ? [] : [`${where}: fails after ${deadline} s, but may start for ${starts} s`]
  })
}

/** Returns the problems of manifests that are applied together. */
export function lint(manifests: readonly Manifest[]): string[] {
  const pods = podsOf(manifests)
  return [
    ...manifests.flatMap(wordProblems),
    ...manifests.flatMap((manifest) => selectorProblems(manifest, pods)),
    ...scalerProblems(manifests),
    ...claimProblems(manifests, pods),
    ...rolloutProblems(manifests, pods),
    ...pods.flatMap(podProblems),
    ...(pods.length === 0 ? ['no pods'] : []),
  ]
}
