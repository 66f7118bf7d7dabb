import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { kubernetesSizes } from '../../../cluster/commands/kubernetes-sizes.js'
import { podMemory } from '../../../src/sharing/pod-memory.js'
import { formatBytes } from '../../../src/units.js'
import { runCommand, startServer, stopCleanly } from '../../helpers/server.js'
import { PROJECT_ROOT, sharedPath } from '../../helpers/shared.js'
import { build, buildWith, CANNOT_BUILD, KUBERNETES, readManifests } from './build.js'
import { lint } from './lint.js'
import { podsOf } from './pods.js'
import { quantity } from './quantity.js'
import { KubernetesSchemas, type Manifest } from './schemas.js'

const SCHEMAS = sharedPath('kubernetes')
const NO_SCHEMAS = existsSync(SCHEMAS) ? null : `${SCHEMAS} is missing`
const OVERLAYS = readdirSync(join(KUBERNETES, 'overlays'))
const COMPONENTS = readdirSync(join(KUBERNETES, 'components'))
const MODEL = join(PROJECT_ROOT, 'models', 'logp', '1', 'model.onnx')

function testUnless(why: string | null, title: string, run: (t: ExecutionContext) => void | Promise<void>) {
  if (why === null) test(title, run)
  else test.skip(`${title} (skipped: ${why})`, run)
}

const schemas = new KubernetesSchemas()
const overlay = (name: string) => build(join(KUBERNETES, 'overlays', name))

for (const name of OVERLAYS) {
  testUnless(CANNOT_BUILD ?? NO_SCHEMAS, `the overlay ${name} matches the Kubernetes schemas`, (t) => {
    t.deepEqual(
      overlay(name).flatMap((manifest) => schemas.problemsOf(manifest)),
      [],
    )
  })
  testUnless(CANNOT_BUILD, `the overlay ${name} is consistent, and its numbers follow from the code`, (t) => {
    t.deepEqual(lint(overlay(name)), [])
  })
}

for (const component of COMPONENTS) {
  testUnless(CANNOT_BUILD ?? NO_SCHEMAS, `the component ${component} fits the base`, (t) => {
    const manifests = buildWith(t, [component])
    t.deepEqual(
      manifests.flatMap((manifest) => schemas.problemsOf(manifest)),
      [],
    )
    t.deepEqual(lint(manifests), [])
  })
}

testUnless(
  CANNOT_BUILD,
  'models can come from a volume, an init container or an image, with any cache',
  (t) => {
    for (const models of ['model-pvc', 'model-init', 'model-image'])
      for (const cache of [[], ['compile-cache']])
        t.deepEqual(lint(buildWith(t, [models, ...cache, 'keda'])), [])
  },
)

/** Errors planted in the manifests, with the message expected from the schemas or the lint. */
interface Planted {
  readonly in?: string
  readonly from: string | RegExp
  readonly to: string
  readonly message: RegExp
}

const UNSEEN_BY_SCHEMAS: readonly Planted[] = [
  {
    from: '"progressDeadlineSeconds":900',
    to: '"progressDeadlineSeconds":600',
    message: /fails after 600 s, but may start for 750 s/,
  },
  {
    from: '"imagePullPolicy":"IfNotPresent"',
    to: '"imagePullPolicy":"ifNotPresent"',
    message: /imagePullPolicy: expected one of/,
  },
  { from: '"ScheduleAnyway"', to: '"ScheduleAnyways"', message: /whenUnsatisfiable: expected one of/ },
  { from: '"medium":"Memory"', to: '"medium":"memory"', message: /medium: expected one of/ },
  { from: '"ReadWriteMany"', to: '"ReadWriteAll"', message: /accessModes: expected one of/ },
  {
    from: '"policyTypes":["Ingress"',
    to: '"policyTypes":["Ingres"',
    message: /policyTypes: expected one of/,
  },
  { from: '"memory":"1890Mi"', to: '"memory":"2Gb"', message: /memory: expected a quantity, got 2Gb/ },
  {
    from: '"mountPath":"/dev/shm","name":"shm"',
    to: '"mountPath":"/dev/shm","name":"sm"',
    message: /no volume sm/,
  },
  { from: '"mountPath":"/dev/shm"', to: '"mountPath":"/dev/sm"', message: /is not a volume in memory/ },
  {
    from: '"targetPort":"http"',
    to: '"targetPort":"web"',
    message: /Service onecopy: no container .* the port web/,
  },
  {
    from: '"port":"admin","scrapeTimeout"',
    to: '"port":"metrics","scrapeTimeout"',
    message: /PodMonitor .* the port metrics/,
  },
  {
    from: /"port":"admin"},"periodSeconds":1,/,
    to: '"port":"http"},"periodSeconds":1,',
    message: /readinessProbe: waits for inference/,
  },
  { from: '/v2/health/live', to: '/health/live', message: /livenessProbe: expected \/v2\/health\/live/ },
  {
    from: '"failureThreshold":150',
    to: '"failureThreshold":30',
    message: /startup fails after 150 s, a start takes up to 720 s/,
  },
  { from: /"failureThreshold":1,/, to: '"failureThreshold":3,', message: /is removed only 3 s after/ },
  {
    from: /"selector":{"app.kubernetes.io\/name":"onecopy"}/,
    to: '"selector":{"app":"onecopy"}',
    message: /Service onecopy: its selector/,
  },
  {
    from: '"podSelector":{"matchLabels":{"app.kubernetes.io/name":"onecopy"}}',
    to: '"podSelector":{"matchLabels":{"name":"onecopy"}}',
    message: /NetworkPolicy onecopy: its selector/,
  },
  {
    from: /"labelSelector":{"matchLabels":{"app.kubernetes.io\/name":"onecopy"}}/,
    to: '"labelSelector":{"matchLabels":{"a":"b"}}',
    message: /spread over other pods/,
  },
  {
    from: '"sizeLimit":"770Mi"',
    to: '"sizeLimit":"512Mi"',
    message: /sizeLimit 536870912, but two generations need/,
  },
  { from: '"sizeLimit":"770Mi"', to: '"sizeLimit":"4Gi"', message: /is not below the memory limit/ },
  {
    from: /"memory":"1890Mi"/g,
    to: '"memory":"1Gi"',
    message: /memory limit 1073741824, but 4 workers need/,
  },
  { from: '"requests":{"cpu":"4"', to: '"requests":{"cpu":"8"', message: /requests more cpu than its limit/ },
  { from: '"limits":{"cpu":"4",', to: '"limits":{', message: /no cpu limit/ },
  { from: '"divisor":"1"', to: '"divisor":"2"', message: /2 workers on 4 CPUs/ },
  { from: '"resource":"limits.cpu"', to: '"resource":"limit.cpu"', message: /resource: expected one of/ },
  { from: '"containerName":"onecopy"', to: '"containerName":"server"', message: /no container server/ },
  {
    from: '"terminationGracePeriodSeconds":45',
    to: '"terminationGracePeriodSeconds":30',
    message: /killed after 30 s, exits after up to 43 s \(preStop 8 s\)/,
  },
  { from: '"value":"30s"', to: '"value":"60s"', message: /killed after 45 s, exits after up to 73 s/ },
  {
    from: '"preStop":{"sleep":{"seconds":8}}',
    to: '"preStop":{"exec":{"command":["true"]}}',
    message: /no preStop/,
  },
  {
    from: 'ONECOPY_DRAIN_TIMEOUT',
    to: 'ONECOPY_DRAIN_TIME',
    message: /environment is invalid: .*--drain-time/,
  },
  { from: '"value":"30s"', to: '"value":"30"', message: /environment is invalid: .*--drain-timeout/ },
  { from: '"value":"0.0.0.0"', to: '"value":"127.0.0.1"', message: /listens only on 127\.0\.0\.1/ },
  {
    from: '"mountPath":"/var/cache/onecopy"',
    to: '"mountPath":"/var/cache"',
    message: /nothing writable at \/var\/cache\/onecopy/,
  },
  {
    from: '"claimName":"onecopy-models"',
    to: '"claimName":"models"',
    message: /no PersistentVolumeClaim models/,
  },
  { from: '"runAsNonRoot":true', to: '"runAsNonRoot":false', message: /may run as root/ },
  { from: '"drop":["ALL"]', to: '"drop":["NET_RAW"]', message: /keeps capabilities/ },
  {
    from: '"readOnlyRootFilesystem":true',
    to: '"readOnlyRootFilesystem":false',
    message: /can write to its root/,
  },
  {
    from: '"allowPrivilegeEscalation":false',
    to: '"allowPrivilegeEscalation":true',
    message: /may gain privileges/,
  },
  { from: '"RuntimeDefault"', to: '"Unconfined"', message: /no seccomp profile/ },
  {
    from: '"kind":"Deployment","name":"onecopy"',
    to: '"kind":"Deployment","name":"server"',
    message: /no Deployment server to scale/,
  },
  {
    from: '"progressDeadlineSeconds":900',
    to: '"progressDeadlineSeconds":900,"replicas":3',
    message: /also sets replicas/,
  },
  { from: '"minReplicas":3', to: '"minReplicas":30', message: /from 30 to 12 replicas/ },
  {
    in: 'kserve',
    from: '"terminationGracePeriodSeconds":45',
    to: '"terminationGracePeriodSeconds":40',
    message: /InferenceService logp: killed after 40 s/,
  },
  {
    in: 'kserve',
    from: '"Standard"',
    to: '"Standart"',
    message: /expected one of Standard/,
  },
  {
    in: 'kserve',
    from: /"sizeLimit":"16Mi"/,
    to: '"sizeLimit":"4Mi"',
    message: /InferenceService logp: sizeLimit/,
  },
]

const SEEN_BY_SCHEMAS: readonly Planted[] = [
  {
    from: '"terminationGracePeriodSeconds":45',
    to: '"terminationGracePeriod":45',
    message: /additional properties/,
  },
  { from: '"periodSeconds":5', to: '"periodSeconds":"5"', message: /periodSeconds: must be integer/ },
  {
    from: '"readOnlyRootFilesystem":true',
    to: '"readOnlyRootFileSystem":true',
    message: /additional properties/,
  },
  { from: '"podMetricsEndpoints"', to: '"endpoints"', message: /additional properties|required/ },
  { from: '"maxReplicas"', to: '"maxReplicaCount"', message: /additional properties|required/ },
  {
    in: 'kserve',
    from: '"supportedModelFormats"',
    to: '"supportedModelFormat"',
    message: /additional properties/,
  },
  { in: 'kserve', from: '"storageUri"', to: '"storageURI"', message: /additional properties/ },
]

function plant(t: ExecutionContext, { in: name = 'production', from, to }: Planted): Manifest[] {
  const text = JSON.stringify(overlay(name))
  const changed = text.replace(from, to)
  t.not(changed, text, `${from} does not occur in ${name}`)
  return JSON.parse(changed) as Manifest[]
}

testUnless(CANNOT_BUILD, 'the lint catches every planted error that schemas cannot detect', (t) => {
  for (const planted of UNSEEN_BY_SCHEMAS) {
    const problems = lint(plant(t, planted))
    t.true(
      problems.some((problem) => planted.message.test(problem)),
      `${planted.from} -> ${planted.to}: ${problems.join('; ')}`,
    )
  }
  const both = [
    ...overlay('production'),
    ...buildWith(t, ['keda']).filter(({ kind }) => kind === 'ScaledObject'),
  ]
  t.regex(lint(both).join('; '), /is scaled by .* and .*: only one may/)
})

testUnless(CANNOT_BUILD ?? NO_SCHEMAS, 'the schemas catch every misspelled or mistyped key', (t) => {
  for (const planted of SEEN_BY_SCHEMAS) {
    const problems = plant(t, planted).flatMap((manifest) => schemas.problemsOf(manifest))
    t.true(
      problems.some((problem) => planted.message.test(problem)),
      `${planted.from} -> ${planted.to}: ${problems.join('; ')}`,
    )
  }
})

test('onecopy inspect --kubernetes prints a patch of the base that fits the model', (t) => {
  const sizes = (...flags: string[]) => {
    const { code, stdout } = runCommand(['inspect', MODEL, '--no-measure', '--workers', '3', ...flags])
    t.is(code, 0)
    return stdout
  }
  const [patch] = readManifests(sizes('--kubernetes'))
  const { spec, annotations } =
    podsOf([patch as Manifest].map((one) => structuredClone(withImage(one))))[0] ?? {}
  const { pod, segmentBytes } = JSON.parse(sizes('--json'))
  const [container] = spec?.containers ?? []
  t.is(annotations?.['onecopy/segment-bytes'], String(segmentBytes))
  t.is(container?.resources?.limits.cpu, '3')
  t.is(quantity(container?.resources?.limits.memory), pod.memoryBytes)
  t.is(quantity(spec?.volumes[0]?.emptyDir?.sizeLimit), pod.sizeLimitBytes)
  t.true(pod.sizeLimitBytes >= 2 * segmentBytes)
  const { code, stderr } = runCommand(['inspect', MODEL, '--json', '--kubernetes'])
  t.is(code, 2)
  t.regex(stderr, /expected --json or --kubernetes, got both/)
})

test('the sizes of the production overlay and the numbers in the documents equal those calculated by the code', (t) => {
  const pod = podMemory({ segmentBytes: 403e6, weightsBytes: 202e6, privateBytes: 20e6 }, 4)
  const sizes = readFileSync(join(KUBERNETES, 'overlays', 'production', 'sizes.yaml'), 'utf8')
  t.is(sizes, kubernetesSizes('a 202 MB MLP', pod))
  const readme = readFileSync(join(PROJECT_ROOT, 'deploy', 'README.md'), 'utf8')
  const mebibytes = (bytes: number) => `${bytes / 2 ** 20} Mi`
  for (const number of [
    ...[formatBytes(pod.swapBytes), formatBytes(pod.compileBytes)],
    ...[mebibytes(pod.memoryBytes), mebibytes(pod.sizeLimitBytes)],
  ])
    t.true(readme.includes(`| ${number} |`), number)
  const scaling = readFileSync(join(PROJECT_ROOT, 'deploy', 'scaling.md'), 'utf8')
  const large = podMemory(pod.model, 16).memoryBytes
  for (const bytes of [large, 4 * pod.memoryBytes])
    t.true(scaling.includes(`${(bytes / 1e9).toFixed(1)} GB`), `${bytes}`)
})

/** A patch omits what the base defines. */
function withImage(manifest: Manifest): Manifest {
  return JSON.parse(
    JSON.stringify(manifest).replace(
      '"name":"onecopy","resources"',
      '"name":"onecopy","image":"x","resources"',
    ),
  )
}

testUnless(CANNOT_BUILD, 'the server answers the probes of the manifests', async (t) => {
  const { server, adminUrl } = await startServer(t, { args: ['--workers', '1'] })
  for (const pod of OVERLAYS.flatMap((name) => podsOf(overlay(name)))) {
    const { startupProbe, readinessProbe, livenessProbe } = pod.serves ?? {}
    for (const probe of [startupProbe, readinessProbe, livenessProbe])
      t.is((await fetch(`${adminUrl}${probe?.httpGet?.path}`)).status, 200, pod.where)
  }
  await stopCleanly(t, server)
})
