/** The result of `onecopy inspect` as text tables. */
import Table from 'cli-table3'
import { wrap } from '../../src/config/help.js'
import type { OperatorCount } from '../../src/sharing/inspection.js'
import type { TensorSpec } from '../../src/tensor.js'
import { formatBytes, formatMs } from '../../src/units.js'
import type { InspectDocument } from './inspect-document.js'
import { textRows } from './text-inspection.js'

const MAX_OPERATORS = 20

/** Escapes control characters, so that text from a model file cannot control the terminal. */
export function printable(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

export function shapeText({ shape }: TensorSpec): string {
  return shape === null ? 'not declared' : `[${shape.join(', ')}]`
}

export function tableOf(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  colWidths: number[],
): string {
  const table = new Table({
    head: [...head],
    colWidths,
    wordWrap: true,
    style: { head: [], border: [], compact: true },
  })
  for (const row of rows) table.push(row.map(printable))
  return table.toString()
}

function operatorsText(operators: readonly OperatorCount[]): string {
  const named = operators.slice(0, MAX_OPERATORS).map(({ operator, count }) => `${count} ${operator}`)
  const rest = operators.length - named.length
  return named.join(', ') + (rest > 0 ? `, and ${rest} more operators` : '')
}

function signed(bytes: number): string {
  return bytes < 0 ? `-${formatBytes(-bytes)}` : formatBytes(bytes)
}

/** Whether the model batches, and the reason. */
export function batchingText({ batchable, reason }: InspectDocument['batching']): string {
  return `${batchable ? 'yes' : 'no'}: ${reason}`
}

/** The node that prevents batching, and the remedy. */
function preventionRows({ preventedBy }: InspectDocument['batching']): [string, string][] {
  if (preventedBy === undefined) return []
  const { node, operator, remedy } = preventedBy
  return [
    ['prevented by', `${node} (${operator})`],
    ['remedy', `${remedy}; or "batching": true in its config, if requests may influence each other`],
  ]
}

function runText(run: NonNullable<InspectDocument['measurement']>['run']): string {
  if ('problem' in run) return `after loading; the run with zeros failed: ${run.problem}`
  const shapes = Object.entries(run.shapes).map(([name, shape]) => `${name} [${shape.join(', ')}]`)
  return `after one run with zeros, ${shapes.join(', ') || 'no inputs'}`
}

function costRows({ measurement, workers, segmentBytes, totalBytes }: InspectDocument): [string, string][] {
  if (measurement === null || totalBytes === null) return [['another worker', 'not measured (--no-measure)']]
  const { perWorkerBytes, loadedBytes, ranBytes, libraryBytes, firstSessionBytes, run } = measurement
  const held = (ranBytes ?? loadedBytes).map(formatBytes).join(' and ')
  return [
    [
      'another worker',
      `${signed(perWorkerBytes)}, measured ${runText(run)}; ${signed(firstSessionBytes - libraryBytes)} of it for the first model of a process ` +
        `(private memory: ${held}; ${formatBytes(libraryBytes)} with only the library)`,
    ],
    [
      `${workers} ${workers === 1 ? 'worker' : 'workers'}`,
      `${formatBytes(totalBytes)}: the segment (${formatBytes(segmentBytes)}) once and ${workers} times the above; the base memory of the workers is extra`,
    ],
  ]
}

export function inspectionText(document: InspectDocument): string {
  const { sharing, unshared, weights, opsets } = document
  const opsetText = opsets.map(({ domain, version }) => `${domain} ${version}`).join(', ')
  const tensors = [
    ...document.inputs.map((spec) => [
      spec.optional ? 'optional' : 'input',
      spec.name,
      spec.datatype,
      shapeText(spec),
    ]),
    ...document.outputs.map((spec) => ['output', spec.name, spec.datatype, shapeText(spec)]),
    ...document.skippedOutputs.map(({ name, reason }) => ['not served', name, '', reason]),
  ]
  const ownBytes = unshared.reduce((sum, { bytes }) => sum + bytes, 0)
  const facts: [string, string][] = [
    ...(document.text === null ? [] : textRows(document.text)),
    ['operators', operatorsText(document.operators)],
    ['compiled to', operatorsText(document.compiledOperators)],
    ['weights', `${weights.count} tensors, ${formatBytes(weights.bytes)}`],
    [
      'shared',
      `${formatBytes(sharing.sharedRawBytes)} raw, ${formatBytes(sharing.sharedPackedBytes)} packed for the kernels: ${sharing.state}`,
    ],
    ['per worker', ownBytes === 0 ? 'no weights' : `${formatBytes(ownBytes)} of weights or more, see below`],
    ['batching', batchingText(document.batching)],
    ...(document.random === null
      ? []
      : [
          ['random', `yes: ${document.random}; its outputs are not checked when it loads`] as [
            string,
            string,
          ],
        ]),
    ...preventionRows(document.batching),
    ['segment', `${formatBytes(document.segmentBytes)}, once per host`],
    ...costRows(document),
    [
      `pod, ${document.workers} workers`,
      `memory limit ${formatBytes(document.pod.memoryBytes)}, ${formatBytes(document.pod.sizeLimitBytes)} of /dev/shm; --kubernetes prints a patch`,
    ],
  ]
  const parts = [
    ...wrap(
      printable(
        `${document.name} (${document.model}), opsets ${opsetText}, compiled in ${formatMs(document.compileMs)}`,
      ),
    ),
    tableOf(['', 'name', 'datatype', 'shape'], tensors, [12, 25, 10, 28]),
    tableOf(['', ''], facts, [17, 60]),
  ]
  if (unshared.length > 0) {
    const rows = unshared.map(({ operator, bytes, why, change }) => [
      operator,
      formatBytes(bytes),
      why,
      change,
    ])
    parts.push(tableOf(['not shared', 'bytes', 'why', 'remedy'], rows, [22, 10, 20, 23]))
  }
  return parts.join('\n')
}
