/** An inspection for a person: tables, no colours. */
import Table from 'cli-table3'
import { wrap } from '../../src/config/help.js'
import type { OperatorCount } from '../../src/sharing/inspection.js'
import type { TensorSpec } from '../../src/tensor.js'
import { formatBytes, formatMs } from '../../src/units.js'
import type { InspectDocument } from './inspect-document.js'
import { textRows } from './text-inspection.js'

const MAX_OPERATORS = 20

/** Text out of a model file: it may not move the cursor. */
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
  return named.join(', ') + (rest > 0 ? `, and ${rest} more kinds` : '')
}

function signed(bytes: number): string {
  return bytes < 0 ? `-${formatBytes(-bytes)}` : formatBytes(bytes)
}

/** A label that says yes, then why. */
export function batchingText({ batchable, reason }: InspectDocument['batching']): string {
  return `${batchable ? 'yes' : 'no'}: ${reason}`
}

/** Which node prevents batching, and what would change that. */
function preventionRows({ preventedBy }: InspectDocument['batching']): [string, string][] {
  if (preventedBy === undefined) return []
  const { node, operator, remedy } = preventedBy
  return [
    ['prevented by', `${node} (${operator})`],
    ['remedy', `${remedy}; or "batching": true in its config, where requests may influence each other`],
  ]
}

function runText(run: NonNullable<InspectDocument['measurement']>['run']): string {
  if ('problem' in run) return `after loading; it was not run with zeros: ${run.problem}`
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
      `${signed(perWorkerBytes)}, measured ${runText(run)}; ${signed(firstSessionBytes - libraryBytes)} of it any model takes ` +
        `(private memory ${held}, with the library alone ${formatBytes(libraryBytes)})`,
    ],
    [
      `${workers} ${workers === 1 ? 'worker' : 'workers'}`,
      `${formatBytes(totalBytes)}: the segment (${formatBytes(segmentBytes)}) once and ${workers} times the above, beside what workers take without a model`,
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
      'shared by all',
      `${formatBytes(sharing.sharedRawBytes)} as they are, ${formatBytes(sharing.sharedPackedBytes)} packed for the kernels: ${sharing.state}`,
    ],
    [
      'in every worker',
      ownBytes === 0 ? 'no weights' : `${formatBytes(ownBytes)} of weights at least, see below`,
    ],
    ['batching', batchingText(document.batching)],
    ...(document.random === null
      ? []
      : [
          ['random', `yes: ${document.random}; its answers are not checked when it is loaded`] as [
            string,
            string,
          ],
        ]),
    ...preventionRows(document.batching),
    ['segment', `${formatBytes(document.segmentBytes)}, once a host`],
    ...costRows(document),
    [
      `a pod of ${document.workers}`,
      `memory limit ${formatBytes(document.pod.memoryBytes)}, ${formatBytes(document.pod.sizeLimitBytes)} of /dev/shm: --kubernetes prints them as a patch`,
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
    parts.push(tableOf(['not shared', 'bytes', 'why', 'what would change it'], rows, [22, 10, 20, 23]))
  }
  return parts.join('\n')
}
