import { readdirSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openCache } from '../../src/compile/cache.js'
import { Compiler } from '../../src/compile/compile.js'
import type { SegmentHeader } from '../../src/segment/layout.js'
import { verifySegment } from '../../src/segment/write.js'
import { recordMemoryRequirements } from '../../src/sharing/memory-requirements.js'
import { imagePathOf } from '../helpers/compile.js'
import { addModel, quantisedConvolution, wideModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { untilSome } from '../helpers/waiting.js'

const MIB = 1024 * 1024

interface Compiling {
  readonly cacheDir: string
  readonly compiling: Promise<string>
  readonly stop: () => void
}

/** Starts a compilation as `serve` does. */
async function compile(t: ExecutionContext, model: Uint8Array, needsTimeoutMs = 60_000): Promise<Compiling> {
  const cacheDir = temporaryFolder(t)
  const cache = await openCache(cacheDir)
  const stopping = new AbortController()
  const { signal } = stopping
  const measure = (imagePath: string, stop: AbortSignal) =>
    recordMemoryRequirements(imagePath, stop, needsTimeoutMs)
  const compiler = new Compiler({ cache, timeoutMs: 60_000, signal, measure })
  t.teardown(() => compiler.close())
  const models = writeModel(temporaryFolder(t), 'm', model)
  const compiling = compiler.compile(join(models, 'm', '1', 'model.onnx')).then(imagePathOf)
  return { cacheDir, compiling, stop: () => stopping.abort() }
}

async function headerOf(imagePath: string): Promise<SegmentHeader> {
  await using file = await open(imagePath)
  return await verifySegment(file)
}

async function privateBytesOf(t: ExecutionContext, model: Uint8Array): Promise<number | null> {
  const { compiling } = await compile(t, model)
  return (await headerOf(await compiling)).memoryRequirements.privateBytes
}

/** Probe processes of this process. */
function probes(): number[] {
  const children = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'latin1')
  return children
    .split(' ')
    .filter(Boolean)
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('probe-main.js')
      } catch {
        return false
      }
    })
}

async function untilMeasured(): Promise<number[]> {
  return await untilSome('it to be measured', () => (probes().length > 0 ? probes() : null))
}

test.serial(
  'private memory per worker is measured at compile time: little for shared weights, all of what a kernel packs',
  async (t) => {
    const sharedBytes = await privateBytesOf(t, wideModel(32 * MIB))
    t.true(sharedBytes !== null && sharedBytes < 16 * MIB, `${sharedBytes} bytes`)
    const weightBytes = 9 * 1536 * 1536
    const packedBytes = await privateBytesOf(t, quantisedConvolution(1536))
    t.true(
      packedBytes !== null && packedBytes > 0.8 * weightBytes && packedBytes < 4 * weightBytes,
      `${packedBytes} bytes for ${weightBytes} of weights`,
    )
  },
)

test.serial('a small model is not measured, so that many models load quickly', async (t) => {
  t.is(await privateBytesOf(t, addModel()), null)
})

for (const [what, signal] of [
  ['are killed', 'SIGKILL'],
  ['hang', 'SIGSTOP'],
] as const) {
  test.serial(`a model is compiled without a measurement whose processes ${what}`, async (t) => {
    const { compiling } = await compile(t, wideModel(32 * MIB), 3000)
    let isDone = false
    const done = compiling.finally(() => {
      isDone = true
    })
    let hit = 0
    await untilSome('it to be compiled', () => {
      for (const pid of probes()) {
        process.kill(pid, signal)
        hit++
      }
      return isDone || null
    })
    t.true(hit > 0)
    t.deepEqual(probes(), [])
    const header = await headerOf(await done)
    t.is(header.memoryRequirements.privateBytes, null)
    t.not(header.selfCheck, null)
  })
}

test.serial('a measurement that is stopped leaves no processes or files', async (t) => {
  const { cacheDir, compiling, stop } = await compile(t, wideModel(32 * MIB))
  const measuring = await untilMeasured()
  stop()
  await t.throwsAsync(compiling, { code: 'SHUTTING_DOWN' })
  t.deepEqual(
    probes().filter((pid) => measuring.includes(pid)),
    [],
  )
  t.deepEqual(readdirSync(cacheDir), [])
})
