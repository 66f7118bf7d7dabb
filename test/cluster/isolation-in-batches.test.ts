import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  ELEMENT,
  floats,
  graph,
  intAttribute,
  modelBytes,
  node,
  value,
  writeModel,
} from '../helpers/onnx-builder.js'
import { runCommand, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'

const COLUMNS = 256
const CONCURRENT = 16
const REQUESTS = 320
const PRODUCTS = 12
const { float, int64 } = ELEMENT

/** Adds slow products by an identity matrix after `from`, so that requests queue and can be batched. */
function slowed(from: string) {
  const identity = new Float32Array(COLUMNS * COLUMNS)
  for (let i = 0; i < COLUMNS; i++) identity[i * COLUMNS + i] = 1
  const nodes = Array.from({ length: PRODUCTS }, (_, i) =>
    node('MatMul', [i === 0 ? from : `p${i}`, 'identity'], [i === PRODUCTS - 1 ? 'y' : `p${i + 1}`]),
  )
  return { nodes, weights: [floats('identity', [COLUMNS, COLUMNS], identity)] }
}

const scalar = (name: string, single: number) => floats(name, [], [single])
const overAll = { attribute: [intAttribute('keepdims', 0)] }
const cast = { attribute: [intAttribute('to', float)] }

interface Threshold {
  readonly bytes: Uint8Array
  readonly datatype: 'FP32' | 'INT64'
  readonly small: number
  readonly large: number
  readonly smallAnswer: number
  readonly node: RegExp
}

function model(
  type: number,
  nodes: ReturnType<typeof node>[],
  constants: ReturnType<typeof scalar>[],
): Uint8Array {
  const { nodes: products, weights } = slowed('out')
  return modelBytes(
    graph({
      input: [value('x', type, ['n', COLUMNS])],
      output: [value('y', float, ['n', COLUMNS])],
      node: [...nodes, ...products],
      initializer: [...constants, ...weights],
    }),
  )
}

/** Models in which a row of large values changes the output of rows of small values in the same batch. */
const MODELS: Readonly<Record<string, Threshold>> = {
  floor: {
    bytes: model(
      float,
      [
        node('Abs', ['x'], ['size']),
        node('Add', ['size', 'tiny'], ['positive']),
        node('Log', ['positive'], ['log']),
        node('ReduceMax', ['log'], ['most'], overAll),
        node('Sub', ['most', 'range'], ['least']),
        node('Max', ['log', 'least'], ['out']),
      ],
      [scalar('tiny', 1e-10), scalar('range', 8 * Math.LN10)],
    ),
    ...{ datatype: 'FP32', small: 0, large: 1, smallAnswer: Math.log(1e-10), node: /ReduceMax/ },
  },
  scale: {
    bytes: model(
      float,
      [
        node('ReduceMax', ['x'], ['most'], overAll),
        node('Greater', ['most', 'limit'], ['isLarge']),
        node('Where', ['isLarge', 'byte', 'one'], ['divisor']),
        node('Div', ['x', 'divisor'], ['out']),
      ],
      [scalar('limit', 16), scalar('byte', 255), scalar('one', 1)],
    ),
    ...{ datatype: 'FP32', small: 1, large: 200, smallAnswer: 1, node: /ReduceMax/ },
  },
  ids: {
    bytes: model(
      int64,
      [
        node('Cast', ['x'], ['number'], cast),
        node('ReduceMax', ['number'], ['most'], overAll),
        node('Max', ['most', 'ten'], ['divisor']),
        node('Div', ['number', 'divisor'], ['out']),
      ],
      [scalar('ten', 10)],
    ),
    ...{ datatype: 'INT64', small: 5, large: 30_000, smallAnswer: 0.5, node: /ReduceMax/ },
  },
}

interface Configuration {
  readonly max_batch_size: number
  readonly dynamic_batching?: object
  readonly parameters: Readonly<
    Record<'batching' | 'batching_prevented_by' | 'batching_remedy', { readonly string_value: string }>
  >
}

async function answerTo(
  url: string,
  name: string,
  { datatype, small, large }: Threshold,
  isLarge: boolean,
): Promise<number[]> {
  const data = Array(COLUMNS).fill(isLarge ? large : small)
  const response = await fetch(`${url}/v2/models/${name}/infer`, {
    method: 'POST',
    body: JSON.stringify({ inputs: [{ name: 'x', datatype, shape: [1, COLUMNS], data }] }),
  })
  const body = (await response.json()) as { outputs: { data: number[] }[] }
  if (response.status !== 200) throw new Error(JSON.stringify(body))
  return body.outputs[0]?.data as number[]
}

/** Number of wrong outputs of small rows, if every fourth request has large values. */
async function wrongAnswers(url: string, name: string, threshold: Threshold): Promise<number> {
  let next = 0
  let wrong = 0
  const client = async () => {
    while (next < REQUESTS) {
      const isLarge = next++ % 4 === 3
      const answer = await answerTo(url, name, threshold, isLarge)
      const isRight = answer.every(
        (one) => Math.abs(one - threshold.smallAnswer) < 1e-4 * (1 + Math.abs(threshold.smallAnswer)),
      )
      if (!isLarge && (answer.length !== COLUMNS || !isRight)) wrong++
    }
  }
  await Promise.all(Array.from({ length: CONCURRENT }, client))
  return wrong
}

function repository(t: ExecutionContext): string {
  const models = temporaryFolder(t)
  for (const [name, { bytes }] of Object.entries(MODELS)) {
    writeModel(models, name, bytes)
    writeModel(models, `${name}-forced`, bytes)
    writeFileSync(join(models, `${name}-forced`, 'config.json'), JSON.stringify({ batching: true }))
  }
  return models
}

test('the output of a row does not depend on other requests, unless the operator forces batching', async (t) => {
  const { server, url } = await startServer(t, { models: repository(t), args: ['--workers', '1'] })
  for (const [name, threshold] of Object.entries(MODELS)) {
    t.is(await wrongAnswers(url, name, threshold), 0, name)
    // The same model with forced batching proves that this load shows the effect.
    t.true((await wrongAnswers(url, `${name}-forced`, threshold)) > 0, name)

    const config = async (model: string) =>
      (await (await fetch(`${url}/v2/models/${model}/config`)).json()) as Configuration
    const { max_batch_size, dynamic_batching, parameters } = await config(name)
    t.is(max_batch_size, 0)
    t.is(dynamic_batching, undefined)
    t.regex(
      parameters.batching.string_value,
      /^no: node "ReduceMax_most" \(ReduceMax\) reduces along the batch axis$/,
    )
    t.regex(parameters.batching_prevented_by.string_value, threshold.node)
    t.regex(parameters.batching_remedy.string_value, /within a row/)
    const forced = await config(`${name}-forced`)
    t.is(forced.max_batch_size, 64)
    t.regex(
      forced.parameters.batching.string_value,
      /^yes: "batching" is true in the model's config \(detected: no: /,
    )

    const plain = await server.logged(
      ({ model, msg }) => model === name && msg === 'requests are not batched',
    )
    t.like(plain, { level: 'info', node: 'ReduceMax_most', operator: 'ReduceMax' })
    const warned = await server.logged(
      ({ model, msg }) => model === `${name}-forced` && /"batching": true/.test(msg),
    )
    t.like(warned, { level: 'warn', node: 'ReduceMax_most' })
  }
  await stopCleanly(t, server)
})

test('inspect names the node that prevents batching, and the remedy', (t) => {
  const models = temporaryFolder(t)
  writeModel(models, 'floor', (MODELS.floor as Threshold).bytes)
  const path = join(models, 'floor', '1', 'model.onnx')
  const { code, stdout } = runCommand(['inspect', path, '--no-measure', '--json'])
  t.is(code, 0)
  t.like(JSON.parse(stdout).batching, {
    batchable: false,
    preventedBy: { node: 'ReduceMax_most', operator: 'ReduceMax' },
  })
  const table = runCommand(['inspect', path, '--no-measure']).stdout
  t.regex(table, /prevented by +│ ReduceMax_most \(ReduceMax\)/)
  t.regex(table, /remedy +│ apply the operation within a row/)
})
