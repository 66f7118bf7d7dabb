/**
 * Messages between an event loop and its inference thread. Both belong to one process and one
 * build, so compile-time types are sufficient. Tensors are transferred, not copied.
 */
import type { ErrorCode } from '../errors.js'
import type { StatsPageReference } from '../metrics/page.js'
import type { OutputLimit, Tensor, TensorData, TensorSpec } from '../tensor.js'
import type { TokenPooling } from '../token-pooling.js'

/** Options with which the thread starts. */
export interface ThreadStart {
  readonly preloadsRuntime: boolean
}

export interface LoadRequest {
  /** Identifies the loaded model in later messages. */
  readonly modelKey: string
  readonly graph: Uint8Array
  readonly folder: string | null
  readonly form: 'compiled' | 'original'
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Defaults of optional inputs. */
  readonly defaults: readonly Tensor[]
  readonly threads: number
  /** Whether memory for activations is kept from run to run. */
  readonly keepsActivations?: boolean | undefined
  /** Identifies the model version in the stats pages; 0 for none. */
  readonly number: number
}

export interface RunRequest {
  readonly modelKey: string
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  readonly outputLimit: OutputLimit | null
  /** How its outputs are reduced before they leave the thread; null: not at all. */
  readonly pooling: TokenPooling | null
  readonly measuresCpu: boolean
  /** Whether it is part of loading the model, not a client's request. */
  readonly isProving: boolean
}

export type ThreadRequest =
  /** Where to record which model the runtime is running. */
  | { readonly type: 'report'; readonly id: number; readonly page: StatsPageReference; readonly slot: number }
  | ({ readonly type: 'load'; readonly id: number } & LoadRequest)
  | ({ readonly type: 'run'; readonly id: number } & RunRequest)
  | { readonly type: 'unload'; readonly id: number; readonly modelKey: string }
  /** Answered when everything before it is done: a liveness check. */
  | { readonly type: 'ping'; readonly id: number }
  | { readonly type: 'close'; readonly id: number }

export interface Ran {
  readonly outputs: readonly Tensor[]
  /**
   * When the runtime began, in nanoseconds on the clock of process.hrtime, which all threads share.
   */
  readonly startedNs: number
  /** Time inside the runtime, in nanoseconds. */
  readonly computeNs: number
  /**
   * CPU time of the process during the run, where it is wanted. Unlike `computeNs` it has no time
   * of other processes.
   */
  readonly cpuNs?: number | undefined
}

export type ThreadReply =
  | { readonly type: 'done'; readonly id: number }
  /** `loadMs`: time inside the runtime. */
  | { readonly type: 'loaded'; readonly id: number; readonly loadMs: number }
  | ({ readonly type: 'ran'; readonly id: number } & Ran)
  | { readonly type: 'failed'; readonly id: number; readonly code: ErrorCode; readonly message: string }

/** Distributes over the union, so that each kind keeps its fields. */
export type WithoutId<T> = T extends unknown ? Omit<T, 'id'> : never

/** The distinct buffers of a list of tensors; strings have none and are cloned. */
export function transferList(tensors: readonly { readonly data: TensorData }[]): ArrayBuffer[] {
  if (tensors.length === 1) {
    const data = tensors[0]?.data
    return ArrayBuffer.isView(data) ? [data.buffer] : []
  }
  const buffers = new Set<ArrayBuffer>()
  for (const { data } of tensors) if (ArrayBuffer.isView(data)) buffers.add(data.buffer)
  return [...buffers]
}
