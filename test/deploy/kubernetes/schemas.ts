/**
 * The Kubernetes schemas, made strict: objects with listed properties allow no others. In schemas from the
 * OpenAPI documents of the API, quantities and int-or-string accept what the API reads from YAML.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { sharedPath } from '../../helpers/shared.js'

type Schema = { [key: string]: unknown }

export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly [key: string]: unknown }
  readonly [key: string]: unknown
}

const CORE = join('schemas', '1.35', 'api', 'v1.json')
const BUILT_IN: Record<string, string> = {
  v1: CORE,
  'apps/v1': join('schemas', '1.35', 'apis', 'apps', 'v1.json'),
  'autoscaling/v2': join('schemas', '1.35', 'apis', 'autoscaling', 'v2.json'),
  'networking.k8s.io/v1': join('schemas', '1.35', 'apis', 'networking.k8s.io', 'v1.json'),
  'policy/v1': join('schemas', '1.35', 'apis', 'policy', 'v1.json'),
}
const CUSTOM: Record<string, string> = {
  'keda.sh/v1alpha1 ScaledObject': join('crds', 'keda.sh', 'scaledobject_v1alpha1.json'),
  'monitoring.coreos.com/v1 PodMonitor': join('crds', 'monitoring.coreos.com', 'podmonitor_v1.json'),
  'monitoring.coreos.com/v1 PrometheusRule': join('crds', 'monitoring.coreos.com', 'prometheusrule_v1.json'),
  'serving.kserve.io/v1alpha1 ServingRuntime': join(
    'crds',
    'serving.kserve.io',
    'servingruntime_v1alpha1.json',
  ),
  'serving.kserve.io/v1beta1 InferenceService': join(
    'crds',
    'serving.kserve.io',
    'inferenceservice_v1beta1.json',
  ),
}
const QUANTITY = 'io.k8s.apimachinery.pkg.api.resource.Quantity'
const INT_OR_STRING = 'io.k8s.apimachinery.pkg.util.intstr.IntOrString'

function isSchema(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isOpen(schema: Schema): boolean {
  return (
    'additionalProperties' in schema ||
    schema['x-kubernetes-preserve-unknown-fields'] === true ||
    schema['x-kubernetes-embedded-resource'] === true
  )
}

/** A copy with closed objects and with Go's `(?i)` expanded. */
function strict(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(strict)
  if (!isSchema(value)) return value
  const copy = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, strict(inner)]))
  if (isSchema(value.properties) && !isOpen(value)) copy.additionalProperties = false
  if (typeof value.pattern === 'string' && value.pattern.includes('(?i)'))
    copy.pattern = value.pattern
      .replace('(?i)', '')
      .replace(/[a-z](?![^[]*\])/gi, (letter) => `[${letter.toLowerCase()}${letter.toUpperCase()}]`)
  if (value['x-kubernetes-int-or-string'] === true) copy.type = ['integer', 'string', 'number']
  return copy
}

function load(path: string): Schema {
  return JSON.parse(readFileSync(sharedPath('kubernetes', path), 'utf8')) as Schema
}

export class KubernetesSchemas {
  readonly #ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false })
  readonly #loaded = new Map<string, string>()

  /** Problems of a manifest, by path; empty if it is valid. */
  problemsOf(manifest: Manifest): string[] {
    const { apiVersion, kind, metadata } = manifest
    const reference = this.#referenceOf(apiVersion, kind)
    if (reference === null) return [`${kind} ${metadata?.name}: no schema of ${apiVersion} ${kind}`]
    const validate = this.#ajv.getSchema(reference) ?? this.#ajv.compile({ $ref: reference })
    if (validate(manifest)) return []
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) =>
        `${kind} ${metadata?.name}${instancePath}: ${message} ${JSON.stringify(params)}`,
    )
  }

  #referenceOf(apiVersion: string, kind: string): string | null {
    const custom = CUSTOM[`${apiVersion} ${kind}`]
    if (custom !== undefined) return this.#add(custom, () => strict(load(custom)) as Schema)
    const path = BUILT_IN[apiVersion]
    if (path === undefined) return null
    const id = this.#add(path, () => builtIn(load(path)))
    const name = this.#loaded.get(`${path} ${kind}`) ?? nameOfKind(load(path), kind)
    if (name === null) return null
    this.#loaded.set(`${path} ${kind}`, name)
    return `${id}#/components/schemas/${name}`
  }

  #add(path: string, make: () => Schema): string {
    const id = `kubernetes:/${path}`
    if (!this.#loaded.has(path)) {
      const { $id: _id, $schema: _schema, ...schema } = make()
      this.#ajv.addSchema(schema, id)
      this.#loaded.set(path, id)
    }
    return id
  }
}

function schemasOf(document: Schema): Record<string, Schema> {
  return (document.components as { schemas: Record<string, Schema> }).schemas
}

function builtIn(document: Schema): Schema {
  const schemas = strict(schemasOf(document)) as Record<string, Schema>
  schemas[QUANTITY] = { type: ['string', 'number'] }
  schemas[INT_OR_STRING] = { type: ['integer', 'string'] }
  return { components: { schemas } }
}

function nameOfKind(document: Schema, kind: string): string | null {
  for (const [name, schema] of Object.entries(schemasOf(document))) {
    const kinds = schema['x-kubernetes-group-version-kind']
    if (Array.isArray(kinds) && kinds.some((one) => one.kind === kind) && name.endsWith(`.${kind}`))
      return name
  }
  return null
}
