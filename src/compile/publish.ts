/**
 * Turns a model file into a sealed segment in shared memory: compile or find in the cache, copy,
 * verify.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { OnecopyError } from '../errors.js'
import type { ModelSource } from '../repository/repository.js'
import { adoptSegment, type Leftover } from '../segment/adopt.js'
import { referenceSegment, type SegmentReference } from '../segment/attach.js'
import type { ServerFolder } from '../segment/folder.js'
import { isInMemory, removeFolder } from '../segment/folder.js'
import type { SegmentHeader } from '../segment/layout.js'
import { hasWorthwhileRanges } from '../segment/raw-weights.js'
import { copySegment, type SegmentFile } from '../segment/write.js'
import { type CompileCache, type CompiledImage, findKeptImage } from './cache.js'
import { holdImage } from './cache-eviction.js'
import { Compiler } from './compile.js'
import { EarlyCopy } from './early-copy.js'

/** Checks that memory suffices for a segment and for the workers' private memory. */
export interface Admission {
  /**
   * `privateBytes` is the memory per worker; the lower bound counts until it is measured.
   * @throws OnecopyError MEMORY_LIMIT.
   */
  reserve(key: string, model: SegmentHeader & { readonly privateBytes: number | null }): void
  release(key: string): void
}

/** An image that disappears this often in a row between being found and being used is an error. */
const MAX_GONE = 3

export interface PublishedModel {
  readonly source: ModelSource
  readonly segment: SegmentFile
  readonly reference: SegmentReference
  /** Measured memory per worker; null if it was not measured. */
  readonly privateBytes: number | null
  readonly origin: 'compiled' | 'cache' | 'dead server'
  /**
   * The open image file of the segment, if the compile cache keeps it and it was requested; the
   * owner closes it.
   */
  readonly image: FileHandle | null
  /**
   * Keeps that image in the cache while open; null if the cache does not keep it. The owner closes
   * it.
   */
  readonly use: FileHandle | null
}

export interface PublishOptions {
  readonly server: ServerFolder
  readonly cache: CompileCache
  readonly budget: Admission
  /**
   * The private memory per worker of a segment; null if it is not known, and need not be or cannot
   * be.
   */
  readonly measure?: (key: string, segment: SegmentFile) => Promise<number | null>
  readonly compileTimeoutMs: number
  /**
   * Whether memory suffices for a model version, whatever it takes, while its compilation is not
   * over.
   */
  readonly hasRoomFor?: (key: string, header: SegmentHeader) => boolean
  /** Number of concurrent compilations. */
  readonly concurrency: number
  readonly signal: AbortSignal
  /** Name of a segment's folder; the default is NAME@VERSION. */
  readonly folderName?: (source: ModelSource) => string
  /** Bytes of free space in the segment folder that are already reserved. */
  readonly reservedBytes?: () => number
  /** Whether images stay open to restore the raw weights of segments. */
  readonly keepsImages?: boolean
  /** Segments of dead servers that can be adopted. */
  readonly leftovers?: readonly Leftover[]
  /** Called when a leftover segment cannot be used. */
  readonly onRefused?: (source: ModelSource, reason: string) => void
  readonly onStart?: (source: ModelSource) => void
  /** Called when the compilation of a model of that size begins, because it is in no cache. */
  readonly onCompiling?: (modelBytes: number) => void
  /** Called when all models that did not fail only need to be copied and verified. */
  readonly onAllCompiled?: () => void
  /**
   * Called when a model cannot be published; the others still are. Without this callback, the first
   * failure stops all.
   */
  readonly onFailed?: (source: ModelSource, failure: unknown) => void
  readonly onDone?: (published: PublishedModel, done: number, total: number) => void
}

function keyOf({ name, version }: ModelSource): string {
  return `${name}@${version}`
}

/**
 * Adopts the segment that a dead server left for this model version, if there is one. Verifying it
 * takes as long as digesting the model, so both run concurrently; `compile` decides whether they
 * match.
 */
async function publishOne(
  source: ModelSource,
  compiler: Compiler,
  options: PublishOptions & { readonly onCompiled: (source: ModelSource) => void },
): Promise<PublishedModel> {
  const { server, cache, budget, leftovers = [], onRefused } = options
  const leftover = leftovers.findLast(
    ({ model, version }) => model === source.name && version === source.version,
  )
  if (leftover === undefined) return await compileAndWrite(source, compiler, options)
  const { key } = leftover.header
  budget.reserve(keyOf(source), { ...leftover.header, privateBytes: null })
  options.onCompiled(source)
  const [adopting, compiling] = await Promise.allSettled([
    adoptSegment(leftover, server, await findKeptImage(cache, key)),
    compiler.compile(source.path, { heldKeys: [key] }),
  ])
  if (adopting.status === 'rejected') throw adopting.reason
  const adoption = adopting.value
  const isMeant = compiling.status === 'fulfilled' && compiling.value.outcome === 'held'
  if (adoption.outcome === 'adopted' && isMeant) {
    const { segment } = adoption
    const privateBytes = await admitMeasured(keyOf(source), segment, options)
    return await publishedAs(source, { segment, privateBytes, origin: 'dead server' }, options)
  }
  if (adoption.outcome === 'adopted') await removeFolder(adoption.segment.folder)
  else if (isMeant) onRefused?.(source, adoption.reason)
  if (compiling.status === 'rejected') throw compiling.reason
  const image = compiling.value.outcome === 'compiled' ? compiling.value : undefined
  return await compileAndWrite(source, compiler, options, image)
}

/**
 * Reserves the measured memory of a segment.
 * @throws OnecopyError MEMORY_LIMIT, SHUTTING_DOWN; the segment is removed then.
 */
async function admitMeasured(
  key: string,
  segment: SegmentFile,
  { measure, budget, signal }: PublishOptions,
): Promise<number | null> {
  try {
    const privateBytes = (await measure?.(key, segment)) ?? null
    if (signal.aborted) throw new OnecopyError('SHUTTING_DOWN', 'stopped while memory was measured')
    if (privateBytes !== null) budget.reserve(key, { ...segment.header, privateBytes })
    return privateBytes
  } catch (thrown) {
    await removeFolder(segment.folder)
    throw thrown
  }
}

/** Describes a written segment. Opens its image before a temporary cache is removed. */
async function publishedAs(
  source: ModelSource,
  { segment, privateBytes, origin }: Pick<PublishedModel, 'segment' | 'privateBytes' | 'origin'>,
  { cache, keepsImages = false }: PublishOptions,
  held: FileHandle | null = null,
): Promise<PublishedModel> {
  const { key, rawRanges } = segment.header
  const use = held ?? (await holdImage(cache, key))
  const imagePath = keepsImages && hasWorthwhileRanges(rawRanges) ? await findKeptImage(cache, key) : null
  const isOnDisk = imagePath !== null && !(await isInMemory(dirname(imagePath)))
  const image = isOnDisk ? await open(imagePath, constants.O_RDONLY | constants.O_NOFOLLOW) : null
  return { source, segment, reference: referenceSegment(segment), privateBytes, origin, image, use }
}

interface ReportedPublishOptions extends PublishOptions {
  /** The model only needs to be copied and verified. */
  readonly onCompiled?: (source: ModelSource) => void
}

async function compileAndWrite(
  source: ModelSource,
  compiler: Compiler,
  options: ReportedPublishOptions,
  compiled?: CompiledImage,
): Promise<PublishedModel> {
  const { server, cache, budget } = options
  const key = (options.folderName ?? keyOf)(source)
  const copy = (imagePath: string) =>
    copySegment({
      ...{ imagePath, server, model: source, folderName: key },
      reservedBytes: options.reservedBytes?.() ?? 0,
      admit: (header) => budget.reserve(key, { ...header, privateBytes: null }),
    })
  const early = new EarlyCopy({
    copy,
    hasRoomFor: (header) => options.hasRoomFor?.(key, header) === true,
    onBegin: () => options.onCompiled?.(source),
  })
  let isCacheTrusted = true
  let gone = 0
  let known = compiled
  const onImage = (imagePath: string) => early.begin(imagePath)
  const onCompiling = (modelBytes: number) => options.onCompiling?.(modelBytes)
  for (;;) {
    let image: CompiledImage
    try {
      image = known ?? (await compiler.compile(source.path, { isCacheTrusted, onImage, onCompiling }))
    } catch (thrown) {
      await early.discard()
      budget.release(key)
      throw thrown
    }
    known = undefined
    if (image.outcome === 'held') throw new Error('expected an image, because no key is held')
    // From here on other servers cannot evict this image.
    const use = await holdImage(cache, image.key)
    // Users who delete files by hand do not respect locks.
    const isGone = (await stat(image.imagePath).catch(() => null)) === null
    if (isGone) {
      await early.discard()
      await use?.close()
      if (++gone < MAX_GONE) continue
      throw new OnecopyError(
        'COMPILE_FAILED',
        `${image.imagePath} was removed ${gone} times before it could be used`,
      )
    }
    options.onCompiled?.(source)
    try {
      const copied = (await early.take()) ?? (await copy(image.imagePath))
      const segment = await copied.finish()
      const privateBytes = await admitMeasured(key, segment, options)
      const origin = image.cached ? 'cache' : 'compiled'
      return await publishedAs(source, { segment, privateBytes, origin }, options, use)
    } catch (thrown) {
      await use?.close()
      budget.release(key)
      const { code, path } = thrown as NodeJS.ErrnoException
      if (code === 'ENOENT' && path === image.imagePath && ++gone < MAX_GONE) continue
      // A damaged cache entry is compiled again once; a damaged new image is an error.
      const isDamagedCache =
        thrown instanceof OnecopyError && thrown.code === 'SEGMENT_INVALID' && image.cached
      if (!isDamagedCache || !isCacheTrusted) throw thrown
      isCacheTrusted = false
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

function compilerFor(options: PublishOptions, signal: AbortSignal): Compiler {
  const { cache, compileTimeoutMs: timeoutMs } = options
  return new Compiler({ cache, timeoutMs, signal })
}

/**
 * Publishes one model; null if its content matches a segment in `heldKeys`.
 * @throws OnecopyError as publishModels.
 */
export async function publishUnlessHeld(
  source: ModelSource,
  heldKeys: readonly string[],
  options: PublishOptions,
): Promise<PublishedModel | null> {
  const compiler = compilerFor(options, options.signal)
  try {
    const image = await compiler.compile(source.path, { heldKeys })
    return image.outcome === 'held' ? null : await compileAndWrite(source, compiler, options, image)
  } catch (thrown) {
    throw naming(source, thrown)
  } finally {
    compiler.close()
  }
}

/**
 * Publishes every model and returns the results in the order of `sources`. The first failure stops
 * the rest unless `onFailed` is given.
 * @throws OnecopyError of Compiler.compile and writeSegment, with the model named.
 */
export async function publishModels(
  sources: readonly ModelSource[],
  options: PublishOptions,
): Promise<PublishedModel[]> {
  const results: (PublishedModel | null)[] = sources.map(() => null)
  const failed = new AbortController()
  const signal = AbortSignal.any([options.signal, failed.signal])
  let next = 0
  let done = 0
  const settled = new Set<ModelSource>()
  const onCompiled = (source: ModelSource) => {
    // A model with a damaged cache entry or leftover is compiled later and reported again.
    if (settled.has(source)) return
    settled.add(source)
    if (settled.size === sources.length) options.onAllCompiled?.()
  }
  const fail = (source: ModelSource, thrown: unknown) => {
    const failure = naming(source, thrown)
    if (options.onFailed === undefined || signal.aborted) {
      failed.abort()
      throw failure
    }
    options.budget.release((options.folderName ?? keyOf)(source))
    options.onFailed(source, failure)
    onCompiled(source)
  }
  const lane = async () => {
    const compiler = compilerFor(options, signal)
    try {
      while (next < sources.length && !signal.aborted) {
        const index = next++
        const source = sources[index] as ModelSource
        options.onStart?.(source)
        try {
          const published = await publishOne(source, compiler, { ...options, onCompiled })
          results[index] = published
          options.onDone?.(published, ++done, sources.length)
        } catch (thrown) {
          fail(source, thrown)
        }
      }
    } finally {
      compiler.close()
    }
  }
  const lanes = await Promise.allSettled(
    Array.from({ length: Math.min(options.concurrency, sources.length) }, lane),
  )
  const failures = lanes
    .filter((outcome) => outcome.status === 'rejected')
    .map((outcome) => outcome.reason as unknown)
  if (failures.length > 0 || signal.aborted)
    await Promise.all(results.flatMap((one) => [one?.image?.close(), one?.use?.close()]))
  if (failures.length > 0) {
    // The other failures result from stopping after the first real one.
    throw (
      failures.find((failure) => !(failure instanceof OnecopyError && failure.code === 'SHUTTING_DOWN')) ??
      failures[0]
    )
  }
  if (signal.aborted) throw new OnecopyError('SHUTTING_DOWN', 'stopped while models were compiled')
  return results.filter((one) => one !== null)
}
