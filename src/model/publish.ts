/** From a model file to a sealed segment in shared memory: compile or find in the cache, copy, verify. */
import { rm } from 'node:fs/promises'
import { OnecopyError } from '../errors.js'
import { referenceSegment, type SegmentReference } from '../segment/attach.js'
import type { ServerFolder } from '../segment/folder.js'
import { type SegmentFile, writeSegment } from '../segment/write.js'
import { Compiler } from './compile.js'
import type { ModelSource } from './repository.js'

export interface PublishedModel {
  readonly source: ModelSource
  readonly segment: SegmentFile
  readonly reference: SegmentReference
  /** Whether the compile cache had it. */
  readonly cached: boolean
}

export interface PublishOptions {
  readonly server: ServerFolder
  readonly cacheDir: string
  readonly compileTimeoutMs: number
  /** Models compiled at the same time. */
  readonly concurrency: number
  readonly signal: AbortSignal
  readonly onStart?: (source: ModelSource) => void
  readonly onDone?: (published: PublishedModel, done: number, total: number) => void
}

async function publishOne(
  source: ModelSource,
  compiler: Compiler,
  server: ServerFolder,
): Promise<PublishedModel> {
  for (let attempt = 1; ; attempt++) {
    const image = await compiler.compile(source.path)
    try {
      const segment = await writeSegment({ imagePath: image.imagePath, server, model: source })
      return { source, segment, reference: referenceSegment(segment), cached: image.cached }
    } catch (thrown) {
      // A damaged cache entry is compiled again, once; a fresh image that fails is a fault to report.
      const isDamagedCache =
        thrown instanceof OnecopyError && thrown.code === 'SEGMENT_INVALID' && image.cached
      if (!isDamagedCache || attempt > 1) throw thrown
      await rm(image.imagePath, { force: true })
    }
  }
}

function naming(source: ModelSource, thrown: unknown): unknown {
  if (!(thrown instanceof OnecopyError)) return thrown
  return new OnecopyError(
    thrown.code,
    `model ${source.name} version ${source.version} (${source.path}): ${thrown.message}`,
    {
      cause: thrown,
    },
  )
}

/**
 * Publishes every model; results in the order of `sources`. The first failure stops the rest.
 * @throws OnecopyError of Compiler.compile and writeSegment, with the model named.
 */
export async function publishModels(
  sources: readonly ModelSource[],
  options: PublishOptions,
): Promise<PublishedModel[]> {
  const results = new Array<PublishedModel>(sources.length)
  const failed = new AbortController()
  const signal = AbortSignal.any([options.signal, failed.signal])
  let next = 0
  let done = 0
  const lane = async () => {
    const compiler = new Compiler({ cacheDir: options.cacheDir, timeoutMs: options.compileTimeoutMs, signal })
    while (next < sources.length && !signal.aborted) {
      const index = next++
      const source = sources[index] as ModelSource
      options.onStart?.(source)
      try {
        const published = await publishOne(source, compiler, options.server)
        results[index] = published
        options.onDone?.(published, ++done, sources.length)
      } catch (thrown) {
        failed.abort()
        throw naming(source, thrown)
      }
    }
    compiler.close()
  }
  const lanes = await Promise.allSettled(
    Array.from({ length: Math.min(options.concurrency, sources.length) }, lane),
  )
  const failures = lanes
    .filter((outcome) => outcome.status === 'rejected')
    .map((outcome) => outcome.reason as unknown)
  if (failures.length > 0) {
    // The others were stopped because of the first real one.
    throw (
      failures.find((failure) => !(failure instanceof OnecopyError && failure.code === 'SHUTTING_DOWN')) ??
      failures[0]
    )
  }
  if (signal.aborted) throw new OnecopyError('SHUTTING_DOWN', 'stopped while models were compiled')
  return results
}
