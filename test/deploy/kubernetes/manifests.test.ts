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
  testUnless(CANNOT_BUILD ?? NO_SCHEMAS, `the overlay ${name} is what Kubernetes' schemas take`, (t) => {
    t.deepEqual(
      overlay(name).flatMap((manifest) => schemas.problemsOf(manifest)),
      [],
    )
  })
  testUnless(
    CANNOT_BUILD,
    `the overlay ${name} holds together, and its numbers follow from the code`,
    (t) => {
      t.deepEqual(lint(overlay(name)), [])
    },
  )
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
  'the models can come from a volume, an init container or an image, with any cache',
  (t) => {
    for (const models of ['model-pvc', 'model-init', 'model-image'])
      for (const cache of [[], ['compile-cache']])
        t.deepEqual(lint(buildWith(t, [models, ...cache, 'keda'])), [])
  },
)

/** Text of manifests that means something else, and what is to be said of it: by the schemas, else by the lint. */
interface Planted {
  readonly in?: string
  readonly from: string | RegExp
  readonly to: string
  readonly said: RegExp
}

const UNSEEN_BY_SCHEMAS: readonly Planted[] = [
  {
    from: '"progressDeadlineSeconds":900',
    to: '"progressDeadlineSeconds":600',
    said: /failed after 600 s, may start for 750 s/,
  },
  {
    from: '"imagePullPolicy":"IfNotPresent"',
    to: '"imagePullPolicy":"ifNotPresent"',
    said: /imagePullPolicy: expected one of/,
  },
  { from: '"ScheduleAnyway"', to: '"ScheduleAnyways"', said: /whenUnsatisfiable: expected one of/ },
  { from: '"medium":"Memory"', to: '"medium":"memory"', said: /medium: expected one of/ },
  { from: '"ReadWriteMany"', to: '"ReadWriteAll"', said: /accessModes: expected one of/ },
  { from: '"policyTypes":["Ingress"', to: '"policyTypes":["Ingres"', said: /policyTypes: expected one of/ },
  { from: '"memory":"1890Mi"', to: '"memory":"2Gb"', said: /memory: expected a quantity, got 2Gb/ },
  {
    from: '"mountPath":"/dev/shm","name":"shm"',
    to: '"mountPath":"/dev/shm","name":"sm"',
    said: /no volume sm/,
  },
  { from: '"mountPath":"/dev/shm"', to: '"mountPath":"/dev/sm"', said: /no memory of its own/ },
  {
    from: '"targetPort":"http"',
    to: '"targetPort":"web"',
    said: /Service onecopy: no container .* the port web/,
  },
  {
    from: '"port":"admin","scrapeTimeout"',
    to: '"port":"metrics","scrapeTimeout"',
    said: /PodMonitor .* the port metrics/,
  },
  {
    from: /"port":"admin"},"periodSeconds":1,/,
    to: '"port":"http"},"periodSeconds":1,',
    said: /readinessProbe: waits behind inference/,
  },
  { from: '/v2/health/live', to: '/health/live', said: /livenessProbe: expected \/v2\/health\/live/ },
  {
    from: '"failureThreshold":150',
    to: '"failureThreshold":30',
    said: /given up after 150 s, a start takes up to 720 s/,
  },
  { from: /"failureThreshold":1,/, to: '"failureThreshold":3,', said: /takes 3 s to be ejected/ },
  {
    from: /"selector":{"app.kubernetes.io\/name":"onecopy"}/,
    to: '"selector":{"app":"onecopy"}',
    said: /Service onecopy: its selector/,
  },
  {
    from: '"podSelector":{"matchLabels":{"app.kubernetes.io/name":"onecopy"}}',
    to: '"podSelector":{"matchLabels":{"name":"onecopy"}}',
    said: /NetworkPolicy onecopy: its selector/,
  },
  {
    from: /"labelSelector":{"matchLabels":{"app.kubernetes.io\/name":"onecopy"}}/,
    to: '"labelSelector":{"matchLabels":{"a":"b"}}',
    said: /spread over pods that are others/,
  },
  {
    from: '"sizeLimit":"770Mi"',
    to: '"sizeLimit":"512Mi"',
    said: /sizeLimit 536870912, two generations take/,
  },
  { from: '"sizeLimit":"770Mi"', to: '"sizeLimit":"4Gi"', said: /is not below the memory limit/ },
  { from: /"memory":"1890Mi"/g, to: '"memory":"1Gi"', said: /memory limit 1073741824, 4 workers take/ },
  { from: '"requests":{"cpu":"4"', to: '"requests":{"cpu":"8"', said: /requests more cpu than its limit/ },
  { from: '"limits":{"cpu":"4",', to: '"limits":{', said: /no limit of cpu for workers to follow/ },
  { from: '"divisor":"1"', to: '"divisor":"2"', said: /2 workers on 4 CPUs/ },
  { from: '"resource":"limits.cpu"', to: '"resource":"limit.cpu"', said: /resource: expected one of/ },
  { from: '"containerName":"onecopy"', to: '"containerName":"server"', said: /no container server/ },
  {
    from: '"terminationGracePeriodSeconds":45',
    to: '"terminationGracePeriodSeconds":30',
    said: /killed after 30 s, ends after up to 43 s \(preStop 8 s\)/,
  },
  { from: '"value":"30s"', to: '"value":"60s"', said: /killed after 45 s, ends after up to 73 s/ },
  {
    from: '"preStop":{"sleep":{"seconds":8}}',
    to: '"preStop":{"exec":{"command":["true"]}}',
    said: /no preStop/,
  },
  { from: 'ONECOPY_DRAIN_TIMEOUT', to: 'ONECOPY_DRAIN_TIME', said: /environment is refused: .*--drain-time/ },
  { from: '"value":"30s"', to: '"value":"30"', said: /environment is refused: .*--drain-timeout/ },
  { from: '"value":"0.0.0.0"', to: '"value":"127.0.0.1"', said: /listens on 127\.0\.0\.1 alone/ },
  {
    from: '"mountPath":"/var/cache/onecopy"',
    to: '"mountPath":"/var/cache"',
    said: /nothing writable at \/var\/cache\/onecopy/,
  },
  {
    from: '"claimName":"onecopy-models"',
    to: '"claimName":"models"',
    said: /no PersistentVolumeClaim models/,
  },
  { from: '"runAsNonRoot":true', to: '"runAsNonRoot":false', said: /may run as root/ },
  { from: '"drop":["ALL"]', to: '"drop":["NET_RAW"]', said: /keeps capabilities/ },
  {
    from: '"readOnlyRootFilesystem":true',
    to: '"readOnlyRootFilesystem":false',
    said: /can write to its root/,
  },
  {
    from: '"allowPrivilegeEscalation":false',
    to: '"allowPrivilegeEscalation":true',
    said: /may gain privileges/,
  },
  { from: '"RuntimeDefault"', to: '"Unconfined"', said: /no seccomp profile/ },
  {
    from: '"kind":"Deployment","name":"onecopy"',
    to: '"kind":"Deployment","name":"server"',
    said: /no Deployment server to scale/,
  },
  {
    from: '"progressDeadlineSeconds":900',
    to: '"progressDeadlineSeconds":900,"replicas":3',
    said: /says replicas too/,
  },
  { from: '"minReplicas":3', to: '"minReplicas":30', said: /from 30 to 12 replicas/ },
  {
    in: 'kserve',
    from: '"terminationGracePeriodSeconds":45',
    to: '"terminationGracePeriodSeconds":40',
    said: /InferenceService logp: killed after 40 s/,
  },
  {
    in: 'kserve',
    from: '"Standard"',
    to: '"Standart"',
    said: /expected one of Standard/,
  },
  {
    in: 'kserve',
    from: /"sizeLimit":"16Mi"/,
    to: '"sizeLimit":"4Mi"',
    said: /InferenceService logp: sizeLimit/,
  },
]

const SEEN_BY_SCHEMAS: readonly Planted[] = [
  {
    from: '"terminationGracePeriodSeconds":45',
    to: '"terminationGracePeriod":45',
    said: /additional properties/,
  },
  { from: '"periodSeconds":5', to: '"periodSeconds":"5"', said: /periodSeconds: must be integer/ },
  {
    from: '"readOnlyRootFilesystem":true',
    to: '"readOnlyRootFileSystem":true',
    said: /additional properties/,
  },
  { from: '"podMetricsEndpoints"', to: '"endpoints"', said: /additional properties|required/ },
  { from: '"maxReplicas"', to: '"maxReplicaCount"', said: /additional properties|required/ },
  {
    in: 'kserve',
    from: '"supportedModelFormats"',
    to: '"supportedModelFormat"',
    said: /additional properties/,
  },
  { in: 'kserve', from: '"storageUri"', to: '"storageURI"', said: /additional properties/ },
]

function plant(t: ExecutionContext, { in: name = 'production', from, to }: Planted): Manifest[] {
  const text = JSON.stringify(overlay(name))
  const changed = text.replace(from, to)
  t.not(changed, text, `${from} stands nowhere in ${name}`)
  return JSON.parse(changed) as Manifest[]
}

testUnless(CANNOT_BUILD, 'every error planted where no schema sees it is caught by the lint', (t) => {
  for (const planted of UNSEEN_BY_SCHEMAS) {
    const problems = lint(plant(t, planted))
    t.true(
      problems.some((problem) => planted.said.test(problem)),
      `${planted.from} -> ${planted.to}: ${problems.join('; ')}`,
    )
  }
  const both = [
    ...overlay('production'),
    ...buildWith(t, ['keda']).filter(({ kind }) => kind === 'ScaledObject'),
  ]
  t.regex(lint(both).join('; '), /is scaled by .* and .*: one at a time/)
})

testUnless(CANNOT_BUILD ?? NO_SCHEMAS, 'every misspelt or mistyped key is caught by the schemas', (t) => {
  for (const planted of SEEN_BY_SCHEMAS) {
    const problems = plant(t, planted).flatMap((manifest) => schemas.problemsOf(manifest))
    t.true(
      problems.some((problem) => planted.said.test(problem)),
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

test('the sizes of the production overlay, and the numbers of the documents, are what the code reckons', (t) => {
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

/** A patch leaves out what the base says. */
function withImage(manifest: Manifest): Manifest {
  return JSON.parse(
    JSON.stringify(manifest).replace(
      '"name":"onecopy","resources"',
      '"name":"onecopy","image":"x","resources"',
    ),
  )
}

testUnless(CANNOT_BUILD, 'the probes of the manifests are answered by the server', async (t) => {
  const { server, adminUrl } = await startServer(t, { args: ['--workers', '1'] })
  for (const pod of OVERLAYS.flatMap((name) => podsOf(overlay(name)))) {
    const { startupProbe, readinessProbe, livenessProbe } = pod.serves ?? {}
    for (const probe of [startupProbe, readinessProbe, livenessProbe])
      t.is((await fetch(`${adminUrl}${probe?.httpGet?.path}`)).status, 200, pod.where)
  }
  await stopCleanly(t, server)
})
