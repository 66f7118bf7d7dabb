/**
 * One loaded generation of an attached model: mapped from its owner's segment, checked, with a count of its
 * users.
 */
import type { BatchingPolicy } from '../batch/queued-model.js'
import { checkSelf } from '../compile/self-check.js'
import { withoutDefaults } from '../compile/without-defaults.js'
import type { Engine } from '../engine/engine.js'
import { LONGEST_LOAD_MS } from '../engine/placement.js'
import { OnecopyError } from '../errors.js'
import { UserCount } from '../inference/user-count.js'
import { returnFreePages } from '../mapping.js'
import { mappedRanges } from '../process/mappings.js'
import { runtimeVersion } from '../runtime/identity.js'
import { prepareRuntimeEnvironment } from '../runtime/process-environment.js'
import { attachWhole } from '../segment/attach.js'
import type { SegmentHeader } from '../segment/layout.js'
import { mayRunOnLoop } from '../segment/second-session.js'
import { batchingPolicy } from '../server/serving-policy.js'
import { requiredOf } from '../tensor.js'
import type { Offer } from './messages.js'

export interface LoadChoices {
  readonly engine: Engine
  /** Names it in the engine. */
  readonly key: string
  /** Null: as its owner has them. */
  readonly threads: number | null
}

export class Generation {
  readonly key: string
  readonly offer: Offer
  readonly header: SegmentHeader
  readonly threads: number
  readonly #close: () => Promise<void>
  readonly #users = new UserCount()

  private constructor(
    parts: Pick<Generation, 'key' | 'offer' | 'header' | 'threads'>,
    close: () => Promise<void>,
  ) {
    this.key = parts.key
    this.offer = parts.offer
    this.header = parts.header
    this.threads = parts.threads
    this.#close = close
  }

  /**
   * Maps and loads the offered generation, and compares its output with the recorded one. Requires the
   * owner's lease.
   * @throws OnecopyError SEGMENT_INVALID, MODEL_UNSUPPORTED, SELF_CHECK_FAILED; nothing stays loaded then.
   */
  static async load(offer: Offer, { engine, key, threads: asked }: LoadChoices): Promise<Generation> {
    const { segment, config } = offer
    const threads = asked ?? config.threads ?? offer.threads
    prepareRuntimeEnvironment()
    const attached = await attachWhole(segment.path, segment)
    let isLoaded = false
    try {
      const { header } = attached
      requireSameRuntime(header, segment.path)
      const loadable = { ...attached, ...(await withoutDefaults(attached.graph, header.inputs)) }
      await engine.load(key, loadable, { threads })
      isLoaded = true
      const { selfCheck, inputs, outputs } = header
      const run: Parameters<typeof checkSelf>[1]['run'] = async (tensors, names) =>
        (await engine.run(key, tensors, names, { isProving: true })).outputs
      if (selfCheck !== null) await checkSelf(selfCheck, { inputs: requiredOf(inputs), outputs, run })
      // The process may serve already.
      if (mayRunOnLoop(header))
        engine.loadOnLoop(key, loadable, { threads, longestMs: LONGEST_LOAD_MS.serving })
      // Packing made buffers that are free by now; this process need not be ours, nor have our malloc
      // settings.
      returnFreePages()
      const parts = { key, offer, header, threads }
      if (await usesRawWeights(header, segment.inode)) return new Generation(parts, attached.close)
      await attached.close()
      return new Generation(parts, async () => {})
    } catch (thrown) {
      if (isLoaded) await engine.unload(key).catch(() => {})
      await attached.close()
      throw thrown
    }
  }

  policy(maxQueuedRequests: number): BatchingPolicy {
    return batchingPolicy(this.header, this.offer.config, { maxQueuedRequests, threads: this.offer.threads })
  }

  use<T>(work: () => Promise<T>): Promise<T> {
    return this.#users.during(work)
  }

  /** Resolves when it is not in use. Call it when no new use can begin. */
  unused(): Promise<void> {
    return this.#users.unused()
  }

  /** To be called when it is unloaded: its owner may release its raw weights. */
  async close(): Promise<void> {
    await this.#close()
  }
}

/** Another version packs weights in another way, and would not find them. */
function requireSameRuntime({ runtimeVersion: compiled }: SegmentHeader, path: string): void {
  const own = runtimeVersion()
  if (compiled === own) return
  throw new OnecopyError(
    'SEGMENT_INVALID',
    `segment ${path}: it was compiled for ONNX Runtime ${compiled}, this process has ${own}`,
  )
}

/**
 * Whether the loaded model still reads weights that its owner could release: a weight that two operators
 * share stays mapped. The lock of the file then stays shared, and nothing is released while this process has
 * it.
 */
async function usesRawWeights({ rawRanges, data }: SegmentHeader, inode: number): Promise<boolean> {
  if (rawRanges.length === 0) return false
  const mapped = await mappedRanges(process.pid, inode)
  return rawRanges.some(({ offsetBytes, bytes }) => {
    const from = data.offsetBytes + offsetBytes
    return mapped.some((one) => one.offsetBytes < from + bytes && one.offsetBytes + one.bytes > from)
  })
}
