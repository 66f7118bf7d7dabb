/**
 * The predictor of a bundle with a manifest: featurizer thread, model, columns. It works in chunks: while the
 * model computes one chunk, the next is featurized, and a request of any size holds at most two.
 */
import { OnecopyError } from '../errors.js'
import {
  DATATYPES,
  elementCount,
  type NumericData,
  requiredOf,
  type Tensor,
  type TensorSpec,
} from '../tensor.js'
import { outputTransform } from '../transform/registry.js'
import { type Encoded, TransformRunner } from '../transform/runner.js'
import type { Cell, RowDecoder, RowSpec } from '../transform/transform.js'
import type { Bundle } from './bundle.js'
import type { Manifest } from './manifest.js'
import { numberText, type Row } from './orient.js'
import type { PredictOptions, Predictor } from './predictor.js'

/** Runs the model once. The buffers of the inputs may be detached afterwards. */
export type RunModel = (
  inputs: readonly Tensor[],
  outputNames: readonly string[],
  isCancelled: () => boolean,
) => Promise<readonly Tensor[]>

export interface NativeOptions {
  readonly bundle: Bundle
  readonly manifest: Manifest
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  readonly run: RunModel
  readonly onTrapped?: (reason: string) => void
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('BUNDLE_INVALID', message)
}

/** One input of the model and the featurizer tensor that feeds it. */
interface Feed {
  readonly name: string
  readonly datatype: RowSpec['datatype']
  readonly rowShape: readonly number[]
  readonly rowElements: number
}

function feedOf(spec: TensorSpec, row: RowSpec): Feed {
  const { name, datatype, shape } = spec
  const what = `input ${JSON.stringify(name)}`
  if (datatype !== row.datatype)
    throw invalid(`${what}: the model expects ${datatype}, the featurizer produces ${row.datatype}`)
  const rowElements = elementCount(row.shape)
  const fixed = shape === null ? row.shape : shape.slice(1)
  const rowShape = fixed.includes(-1) ? row.shape : fixed
  const fits =
    elementCount(rowShape) === rowElements &&
    (!fixed.includes(-1) ||
      (fixed.length === row.shape.length && fixed.every((size, i) => size === -1 || size === row.shape[i])))
  if (!fits)
    throw invalid(
      `${what}: the model expects rows of shape [${fixed}], the featurizer produces [${row.shape}]`,
    )
  return { name, datatype: row.datatype, rowShape, rowElements }
}

/** The model's inputs in the order of the featurizer's tensors. */
function feedsOf({ manifest, inputs }: NativeOptions, rows: readonly RowSpec[]): Feed[] {
  const names = manifest.inputNames ?? inputs.map(({ name }) => name)
  if (names.length !== rows.length || names.length !== inputs.length) {
    throw invalid(
      `input: the featurizer produces ${rows.length} tensors, the model expects ${inputs.length} (${inputs.map(({ name }) => name).join(', ')})`,
    )
  }
  return names.map((name, i) => {
    const spec = inputs.find((input) => input.name === name)
    if (spec !== undefined) return feedOf(spec, rows[i] as RowSpec)
    throw invalid(`input: the model has no input ${JSON.stringify(name)}`)
  })
}

/** The batch size fixed by the graph; null if it is variable. */
function fixedRows(inputs: readonly TensorSpec[]): number | null {
  const sizes = inputs.flatMap(({ shape }) => (shape?.[0] === undefined || shape[0] < 1 ? [] : [shape[0]]))
  return sizes.length === 0 ? null : Math.min(...sizes)
}

/** Formats a value for its column type in text results: Python writes whole floats with a decimal point. */
function textOf(cell: Cell, type: string): Cell {
  if (typeof cell !== 'number') return cell
  if (!Number.isFinite(cell)) return null
  if (type === 'integer') return String(Math.trunc(cell))
  const isWhole = Number.isInteger(cell) && !Object.is(cell, -0) && Math.abs(cell) < 1e16
  return type === 'float' && isWhole ? `${cell}.0` : numberText(cell)
}

export class NativePredictor implements Predictor {
  readonly #options: NativeOptions
  readonly #runner: TransformRunner
  readonly #feeds: readonly Feed[]
  readonly #decoder: RowDecoder
  readonly #fixedRows: number | null
  readonly #nulls: Row

  private constructor(given: NativeOptions, runner: TransformRunner) {
    // A featurizer produces only the required inputs.
    const options = { ...given, inputs: requiredOf(given.inputs) }
    const { bundle, manifest, outputs } = options
    this.#options = options
    this.#runner = runner
    this.#feeds = feedsOf(options, runner.rows)
    this.#fixedRows = fixedRows(options.inputs)
    this.#nulls = bundle.columns.map(() => null)
    this.#decoder = outputTransform(manifest.output).open(manifest.output.options, {
      outputs,
      columns: bundle.columns,
    })
  }

  /** @throws OnecopyError BUNDLE_INVALID, TRANSFORM_UNAVAILABLE. */
  static async open(options: NativeOptions): Promise<NativePredictor> {
    const { manifest, onTrapped } = options
    const runner = await TransformRunner.open({
      choice: manifest.featurizer,
      ...(onTrapped && { onTrapped }),
    })
    try {
      return new NativePredictor(options, runner)
    } catch (thrown) {
      await runner.close()
      throw thrown
    }
  }

  async predict(inputs: readonly unknown[], options: PredictOptions = {}): Promise<Row[]> {
    const { isCancelled = () => false, onProgress } = options
    const { batchSize } = this.#options.manifest
    const rows: Row[] = inputs.map(() => this.#nulls)
    let computing = Promise.resolve()
    for (let from = 0; from < inputs.length; from += batchSize) {
      const chunk = inputs.slice(from, from + batchSize)
      const encoded = await this.#runner.encode(chunk)
      await computing
      if (isCancelled()) throw new OnecopyError('REQUEST_CANCELLED', 'the client disconnected')
      computing = this.#compute(encoded, isCancelled).then((computed) => {
        let next = 0
        for (const [i, isAccepted] of encoded.accepted.entries())
          if (isAccepted === 1) rows[from + i] = computed[next++] as Row
        onProgress?.(from + chunk.length)
      })
      // Awaited with the next chunk or at the end; this prevents an unhandled rejection before that.
      computing.catch(() => {})
    }
    await computing
    return rows
  }

  /** Results of the accepted rows. */
  async #compute(encoded: Encoded, isCancelled: () => boolean): Promise<Row[]> {
    const count = encoded.accepted.reduce((sum, accepted) => sum + accepted, 0)
    const step = this.#fixedRows ?? Math.max(count, 1)
    const rows: Row[] = []
    for (let from = 0; from < count; from += step) {
      const taken = Math.min(step, count - from)
      const tensors = this.#feeds.map((feed, i) =>
        tensorOf(feed, encoded.rows[i] as NumericData, { from, taken, rows: step, isWhole: taken === count }),
      )
      const outputs = await this.#options.run(tensors, this.#decoder.outputNames, isCancelled)
      for (let row = 0; row < taken; row++) rows.push(this.#rowOf(outputs, row))
    }
    return rows
  }

  #rowOf(outputs: readonly Tensor[], row: number): Row {
    const { outputType, columnTypes } = this.#options.bundle
    const cells = this.#decoder.decode(outputs, row)
    return outputType === 'string' ? cells.map((cell, i) => textOf(cell, columnTypes[i] ?? '')) : cells
  }

  async close(): Promise<void> {
    await this.#runner.close()
  }
}

/**
 * Rows `from` to `from + taken` as a tensor of `rows` rows, padded with zeros; not copied if it is the whole
 * data.
 */
function tensorOf(
  { name, datatype, rowShape, rowElements }: Feed,
  data: NumericData,
  { from, taken, rows, isWhole }: { from: number; taken: number; rows: number; isWhole: boolean },
): Tensor {
  const shape = [rows, ...rowShape]
  if (isWhole && rows === taken) return { name, datatype, shape, data }
  const { storage } = DATATYPES[datatype]
  const padded = new storage(rows * rowElements) as NumericData
  padded.set(data.subarray(from * rowElements, (from + taken) * rowElements) as never)
  return { name, datatype, shape, data: padded }
}
