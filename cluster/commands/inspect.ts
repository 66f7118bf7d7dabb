/**
 * `onecopy inspect MODEL.onnx`: the inputs and outputs of a model, what workers share of it, and
 * the measured memory of another worker.
 */
import { type TemporaryImage, withCompiled } from '../../src/compile/temporary-image.js'
import { cgroupMemoryLimit } from '../../src/process/memory.js'
import { MODEL_NAME_PATTERN, modelPathOf } from '../../src/repository/model-path.js'
import { checkSegmentFolder, createServerFolder, removeFolder } from '../../src/segment/folder.js'
import { writeSegment } from '../../src/segment/write.js'
import { inspectModel } from '../../src/sharing/inspection.js'
import { MemoryBudget } from '../../src/sharing/memory-budget.js'
import { privateBytesOf } from '../../src/sharing/memory-requirements.js'
import { type PodMemory, podMemory, podModel } from '../../src/sharing/pod-memory.js'
import { type Measurement, measureWorker } from '../../src/sharing/probe.js'
import {
  COMPILE_TIMEOUT_MS,
  commandLine,
  modelFileOf,
  segmentDirOf,
  usageError,
  workersOf,
} from './arguments.js'
import type { InspectDocument } from './inspect-document.js'
import { inspectionText } from './inspection-text.js'
import { untilInterrupted } from './interruptible.js'
import { kubernetesSizes } from './kubernetes-sizes.js'
import { inspectText, readTextPlace, type TextPlace, textPlaceOf } from './text-inspection.js'

interface Options {
  /** As given, or of a text model its folder. */
  readonly path: string
  /** Where the model comes with a tokenizer. */
  readonly textPlace: TextPlace | null
  readonly workers: number
  readonly segmentDir: string
  readonly measure: boolean
  readonly json: boolean
  readonly kubernetes: boolean
}

async function readOptions(argv: readonly string[]): Promise<Options> {
  const { values, positionals } = commandLine('inspect', argv)
  const isOn = (flag: string) => values[flag] === 'on'
  if (isOn('json') && isOn('kubernetes'))
    throw usageError('expected --json or --kubernetes, got both', 'inspect')
  const [path] = positionals
  const textPlace = path === undefined || positionals.length > 1 ? null : await textPlaceOf(path)
  return {
    workers: workersOf(values.workers, 'inspect'),
    segmentDir: segmentDirOf(values['segment-dir'], 'inspect'),
    measure: !isOn('no-measure'),
    json: isOn('json'),
    kubernetes: isOn('kubernetes'),
    ...{ textPlace, path: textPlace?.file ?? textPlace?.folder ?? modelFileOf(positionals, 'inspect') },
  }
}

async function measure(
  { imagePath }: TemporaryImage,
  { segmentDir, name, signal }: { segmentDir: string; name: string; signal: AbortSignal },
): Promise<Measurement> {
  const server = await createServerFolder(segmentDir)
  try {
    const segment = await writeSegment({
      imagePath,
      server,
      // The name becomes a folder name of the segment, but a file name need not be a valid model
      // name.
      model: { name: MODEL_NAME_PATTERN.test(name) ? name : 'model', version: '1' },
      admit: (header) =>
        new MemoryBudget({ limitBytes: cgroupMemoryLimit(), workers: 2 }).reserve(name, {
          ...header,
          privateBytes: null,
        }),
    })
    signal.throwIfAborted()
    return await measureWorker(segment.path, { run: true, signal })
  } finally {
    await removeFolder(server.path)
  }
}

async function inspect(
  options: Options,
  signal: AbortSignal,
): Promise<{ document: InspectDocument; pod: PodMemory }> {
  const { path, workers, segmentDir, textPlace } = options
  const textFolder = textPlace === null ? null : await readTextPlace(textPlace)
  const modelPath = textFolder?.modelPath ?? path
  const { name } = textFolder ?? modelPathOf(modelPath)
  return await withCompiled(modelPath, { timeoutMs: COMPILE_TIMEOUT_MS, signal }, async (oneOff) => {
    const inspection = inspectModel(oneOff)
    const text = textFolder === null ? null : await inspectText(textFolder, { ...oneOff, signal })
    const measurement = options.measure ? await measure(oneOff, { segmentDir, name, signal }) : null
    const { compileMs } = oneOff
    const totalBytes =
      measurement && inspection.segmentBytes + workers * Math.max(0, measurement.perWorkerBytes)
    const pod = podMemory(podModel(oneOff.header, measurement && privateBytesOf(measurement)), workers)
    const { model: _, ...sizes } = pod
    const document = {
      ...{ model: modelPath, name, text, ...inspection },
      ...{ compileMs: Math.round(compileMs), workers, measurement, totalBytes, pod: sizes },
    }
    return { document, pod }
  })
}

/** Runs `onecopy inspect`; resolves with the exit code. */
export async function runInspect(argv: readonly string[]): Promise<number> {
  const options = await readOptions(argv)
  const { json, kubernetes, path } = options
  if (options.measure) await checkSegmentFolder(options.segmentDir)
  const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
  return await untilInterrupted(
    async (signal) => {
      const { document, pod } = await inspect(options, signal)
      if (json) print(document)
      else if (kubernetes) process.stdout.write(kubernetesSizes(document.name, pod))
      else process.stdout.write(`${inspectionText(document)}\n`)
    },
    ({ code, message }) => {
      if (json) print({ model: path, error: { code, message } })
    },
  )
}
