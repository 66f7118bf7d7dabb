/**
 * Steps before and after a model: input transforms convert molecules, text or bytes into tensors, and output
 * transforms convert tensors into values. The server only knows this interface. A new kind is one file and
 * one line in registry.ts.
 *
 * An input transform processes one item at a time and writes one row of each of its tensors. It runs in its
 * own thread (thread.ts), which its owner (runner.ts) supervises: an item that never ends costs that thread,
 * not the server. So it may block or hang, and it need not clean up after a trap.
 *
 * An output transform converts one row of the model's outputs. It runs on the event loop, so it must be fast.
 */
import type * as z from 'zod'
import type { Datatype, NumericData, Tensor } from '../tensor.js'

/** One row of a tensor; the shape has no batch dimension. */
export interface RowSpec {
  readonly datatype: Exclude<Datatype, 'BYTES'>
  readonly shape: readonly number[]
}

/** A value in a result; null is a missing value. */
export type Cell = number | string | null

export interface InputTransform<Options = unknown> {
  /** Schema of the manifest options; unknown keys are rejected. */
  readonly options: z.ZodType<Options>
  /** Measured private memory of a process that opened it; omitted if small. */
  readonly privateBytes?: number
  /** The rows of its tensors, known before it is opened. */
  rows(options: Options): readonly RowSpec[]
  /**
   * Loads the transform; called in the thread.
   * @throws OnecopyError TRANSFORM_UNAVAILABLE if a dependency is not installed.
   */
  open(options: Options): Promise<RowEncoder>
}

export interface RowEncoder {
  /**
   * Writes one item into zeroed rows, one per tensor. Returns false if the item is invalid; its result row is
   * then null.
   * @throws TransformBroken if the transform is unusable: it is reopened, and the item counts as rejected.
   */
  encode(item: unknown, rows: readonly NumericData[]): boolean | Promise<boolean>
}

/** An input transform is no longer usable. */
export class TransformBroken extends Error {}

export interface OutputTransform<Options = unknown> {
  readonly options: z.ZodType<Options>
  /** @throws OnecopyError BUNDLE_INVALID if the options do not match the model's outputs or the columns. */
  open(options: Options, context: OutputContext): RowDecoder
}

export interface OutputContext {
  /** The model's outputs, in order. */
  readonly outputs: readonly { readonly name: string; readonly shape: readonly number[] | null }[]
  /** Names of the columns to fill. */
  readonly columns: readonly string[]
}

export interface RowDecoder {
  /** Outputs to request from the model. */
  readonly outputNames: readonly string[]
  /** The values of row `row`, one for each column. Tensors are in the order of `outputNames`. */
  decode(outputs: readonly Tensor[], row: number): Cell[]
}
