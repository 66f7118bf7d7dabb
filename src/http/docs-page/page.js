/*
 * Shows the document of the port that this page came from, with the models that are served now: their names to
 * choose from, and for each a request that can be sent as it stands.
 */

/** More would make the page slow; all of them can still be typed. */
const MAX_EXAMPLES = 20
const MAX_ELEMENTS = 50_000

const base = new URL('.', window.location.href)

async function json(path) {
  const response = await fetch(new URL(path, base))
  if (!response.ok) throw new Error(`${path}: status ${response.status}`)
  return await response.json()
}

/** Ones, row-major, one row where the number of rows is free; null where that has no JSON form or is too long. */
function exampleInput({ name, datatype, shape }) {
  if (datatype === 'FP16' || datatype === 'BF16') return null
  const sizes = shape.map((size) => (size === -1 ? 1 : size))
  const elements = sizes.reduce((product, size) => product * size, 1)
  if (elements > MAX_ELEMENTS) return null
  const one = datatype === 'BYTES' ? 'text' : datatype === 'BOOL' ? true : 1
  return { name, datatype, shape: sizes, data: Array(elements).fill(one) }
}

async function exampleOf(model) {
  const { inputs } = await json(`v2/models/${encodeURIComponent(model)}`)
  const isBuiltIn = model === 'logp' && inputs.length === 1 && inputs[0].name === 'fingerprint'
  if (isBuiltIn)
    return { summary: 'logp: phenol and ibuprofen', value: await json('docs/sample-request.json') }
  const filled = inputs.filter(({ optional }) => !optional).map(exampleInput)
  return filled.includes(null) ? null : { summary: `${model}: ones`, value: { inputs: filled } }
}

async function examplesOf(models) {
  const examples = {}
  for (const model of models.slice(0, MAX_EXAMPLES)) {
    const example = await exampleOf(model).catch(() => null)
    if (example !== null) examples[model] = example
  }
  return examples
}

/** Fills in what is served. The admin port serves no models: its document stays as it is. */
async function withModels(spec) {
  if (spec.paths['/v2/models'] === undefined) return
  const { models } = await json('v2/models')
  if (models.length === 0) return
  const examples = await examplesOf(models)
  const [first = models[0]] = Object.keys(examples)
  for (const operation of Object.values(spec.paths).flatMap((path) => Object.values(path))) {
    for (const parameter of operation.parameters ?? []) {
      if (parameter.name === 'model') parameter.schema = { type: 'string', enum: models, default: first }
    }
    const content =
      operation.operationId?.startsWith('infer') && operation.requestBody?.content['application/json']
    if (!content || Object.keys(examples).length === 0) continue
    delete content.example
    content.examples = examples
  }
}

const spec = await json('openapi.json')
await withModels(spec).catch(() => {})
// The server may stand behind a prefix.
spec.servers = [{ url: base.href.replace(/\/$/, '') }]
window.SwaggerUIBundle({
  spec,
  domNode: document.getElementById('page'),
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
})
