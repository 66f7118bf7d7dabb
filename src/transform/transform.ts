/**
 * Steps before and after a model: what turns the things that people have (molecules, text, bytes) into tensors, and
 * tensors into the values that they want. The server knows this interface and nothing of what is behind it: a new
 * kind is one file and one line in registry.ts.
 *
 * An input transform works on one item at a time and writes it as one row of each of its tensors. It runs in a
 * thread of its own (thread.ts), which its owner (runner.ts) watches: an item that never ends costs that thread,
 * not the server. So it may block, and it may hang, and it need not clean up after a trap.
 *
 * An output transform works on a row of the model's outputs. It runs where requests are answered: it must be quick.
 */
import type { z } from 'zod'
import type { Datatype, NumericData, Tensor } from '../tensor.js'

/** One row of a tensor: its shape is without the batch dimension. */
export interface RowSpec {
  readonly datatype: Exclude<Datatype, 'BYTES'>
  readonly shape: readonly number[]
}

/** What a value in an answer can be; null is one that there is not. */
export type Cell = number | string | null

export interface InputTransform<Options = unknown> {
  /** The options of a manifest, checked; unknown keys are refused. */
  readonly options: z.ZodType<Options>
  /** What a process that has opened it holds for itself, measured; little where nothing is said. */
  readonly privateBytes?: number
  /** What its tensors look like: known before it is opened. */
  rows(options: Options): readonly RowSpec[]
  /**
   * Loads what it takes; in the thread.
   * @throws OnecopyError TRANSFORM_UNAVAILABLE when something that it needs is not installed.
   */
  open(options: Options): Promise<RowEncoder>
}

export interface RowEncoder {
  /**
   * Writes one item into zeroed rows, one for each tensor. False where the item has no such form: its row in the answer
   * is then nulls.
   * @throws TransformBroken when it cannot be used any more: it is opened anew, and the item counts as refused.
   */
  encode(item: unknown, rows: readonly NumericData[]): boolean | Promise<boolean>
}

/** An input transform that cannot be used any more. */
export class TransformBroken extends Error {}

export interface OutputTransform<Options = unknown> {
  readonly options: z.ZodType<Options>
  /**
   * @throws OnecopyError BUNDLE_INVALID when the options do not fit the model's outputs or the columns.
   */
  open(options: Options, context: OutputContext): RowDecoder
}

export interface OutputContext {
  /** The model's outputs, in its order. */
  readonly outputs: readonly { readonly name: string; readonly shape: readonly number[] | null }[]
  /** Names of the columns to fill. */
  readonly columns: readonly string[]
}

export interface RowDecoder {
  /** Outputs that are asked of the model. */
  readonly outputNames: readonly string[]
  /** The values of row `row`, one for each column. Tensors are in the order of `outputNames`. */
  decode(outputs: readonly Tensor[], row: number): Cell[]
}
