/** The pods that the lint checks: from a Deployment, or from KServe's runtime and service together. */
import * as z from 'zod'
import type { Manifest } from './schemas.js'

const quantities = z.record(z.string(), z.union([z.string(), z.number()]))
const probe = z.looseObject({
  httpGet: z
    .object({
      path: z.string(),
      port: z.union([z.string(), z.int()]),
      scheme: z.string().optional(),
    })
    .optional(),
  grpc: z.object({ port: z.int(), service: z.string().optional() }).optional(),
  periodSeconds: z.int().default(10),
  failureThreshold: z.int().default(3),
  timeoutSeconds: z.int().default(1),
})
export type Probe = z.infer<typeof probe>

const container = z.looseObject({
  name: z.string(),
  image: z.string(),
  env: z
    .array(
      z.looseObject({
        name: z.string(),
        value: z.string().optional(),
        valueFrom: z
          .looseObject({
            resourceFieldRef: z
              .object({
                containerName: z.string().optional(),
                resource: z.string(),
                divisor: z.string().optional(),
              })
              .optional(),
          })
          .optional(),
      }),
    )
    .default([]),
  ports: z.array(z.looseObject({ name: z.string().optional(), containerPort: z.int() })).default([]),
  startupProbe: probe.optional(),
  readinessProbe: probe.optional(),
  livenessProbe: probe.optional(),
  lifecycle: z
    .looseObject({ preStop: z.looseObject({ sleep: z.object({ seconds: z.int() }).optional() }).optional() })
    .optional(),
  resources: z.looseObject({ requests: quantities.default({}), limits: quantities.default({}) }).optional(),
  securityContext: z
    .looseObject({
      allowPrivilegeEscalation: z.boolean().optional(),
      readOnlyRootFilesystem: z.boolean().optional(),
      capabilities: z.looseObject({ drop: z.array(z.string()).default([]) }).optional(),
    })
    .optional(),
  volumeMounts: z
    .array(z.looseObject({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().optional() }))
    .default([]),
})
export type Container = z.infer<typeof container>

const volume = z.looseObject({
  name: z.string(),
  emptyDir: z
    .looseObject({ medium: z.string().optional(), sizeLimit: z.union([z.string(), z.number()]).optional() })
    .optional(),
  persistentVolumeClaim: z.looseObject({ claimName: z.string() }).optional(),
})

const podSpec = z.looseObject({
  containers: z.array(container),
  initContainers: z.array(container).default([]),
  volumes: z.array(volume).default([]),
  terminationGracePeriodSeconds: z.number().optional(),
  automountServiceAccountToken: z.boolean().optional(),
  securityContext: z
    .looseObject({
      runAsNonRoot: z.boolean().optional(),
      runAsUser: z.int().optional(),
      seccompProfile: z.object({ type: z.string() }).optional(),
    })
    .optional(),
  topologySpreadConstraints: z
    .array(z.looseObject({ labelSelector: z.object({ matchLabels: z.record(z.string(), z.string()) }) }))
    .default([]),
})

export type Labels = Readonly<Record<string, string>>

export function matches(selector: Labels, labels: Labels): boolean {
  const wanted = Object.entries(selector)
  return wanted.length > 0 && wanted.every(([key, value]) => labels[key] === value)
}

export interface Pod {
  /** Location for messages. */
  readonly where: string
  readonly spec: z.infer<typeof podSpec>
  readonly labels: Labels
  readonly annotations: Labels
  /** Names that scalers and selectors refer to. */
  readonly owner: { readonly kind: string; readonly name: string }
  readonly serves: Container | undefined
}

const texts = z.record(z.string(), z.string()).default({})
const DeploymentSchema = z.looseObject({
  spec: z.looseObject({
    template: z.looseObject({
      metadata: z.looseObject({ labels: texts, annotations: texts }),
      spec: podSpec,
    }),
  }),
})
const RuntimeSchema = z.looseObject({ spec: podSpec.extend({ annotations: texts }) })
const ServiceSchema = z.looseObject({
  spec: z.looseObject({
    predictor: podSpec.partial({ containers: true }).extend({
      model: z.looseObject({ runtime: z.string(), resources: container.shape.resources }),
    }),
  }),
})

function podOf(parts: Omit<Pod, 'where' | 'serves'>): Pod {
  const { owner, spec } = parts
  const serves = spec.containers.find(({ name }) => name === 'onecopy' || name === 'kserve-container')
  return { ...parts, where: `${owner.kind} ${owner.name}`, serves }
}

function runtimePod(manifest: Manifest, manifests: readonly Manifest[]): Pod[] {
  const { annotations, ...spec } = RuntimeSchema.parse(manifest).spec
  const { name } = manifest.metadata
  const services = manifests
    .filter(({ kind }) => kind === 'InferenceService')
    .map((one) => ({ manifest: one, predictor: ServiceSchema.parse(one).spec.predictor }))
    .filter(({ predictor }) => predictor.model.runtime === name)
  return services.map(({ manifest: service, predictor }) => {
    const { model, containers: _, initContainers: _init, volumes: _volumes, ...pod } = predictor
    const containers = spec.containers.map((one) => ({ ...one, resources: model.resources ?? one.resources }))
    return podOf({
      owner: { kind: service.kind, name: service.metadata.name },
      spec: { ...spec, ...pod, containers },
      labels: {},
      annotations,
    })
  })
}

export function podsOf(manifests: readonly Manifest[]): Pod[] {
  return manifests.flatMap((manifest) => {
    const owner = { kind: manifest.kind, name: manifest.metadata.name }
    if (manifest.kind === 'ServingRuntime') return runtimePod(manifest, manifests)
    if (manifest.kind !== 'Deployment') return []
    const { metadata, spec } = DeploymentSchema.parse(manifest).spec.template
    return [podOf({ owner, spec, labels: metadata.labels, annotations: metadata.annotations })]
  })
}
