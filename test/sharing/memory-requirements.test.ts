import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openCache } from '../../src/compile/cache.js'
import { Compiler } from '../../src/compile/compile.js'
import { createServerFolder } from '../../src/segment/folder.js'
import { writeSegment } from '../../src/segment/write.js'
import { measureSegment } from '../../src/sharing/memory-requirements.js'
import { imagePathOf } from '../helpers/compile.js'
import { addModel, quantisedConvolution, wideModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { untilSome } from '../helpers/waiting.js'

const MIB = 1024 * 1024

interface Compiled {
  readonly cacheDir: string
  readonly measure: (options?: {
    readonly hasRoom?: boolean
    readonly signal?: AbortSignal
    readonly timeoutMs?: number
  }) => Promise<number | null>
}

/** Compiles a model into a cache of its own and writes its segment. */
async function compile(t: ExecutionContext, model: Uint8Array): Promise<Compiled> {
  const cacheDir = temporaryFolder(t)
  const cache = await openCache(cacheDir)
  const compiler = new Compiler({ cache, timeoutMs: 60_000, signal: new AbortController().signal })
  t.teardown(() => compiler.close())
  const models = writeModel(temporaryFolder(t), 'm', model)
  const imagePath = imagePathOf(await compiler.compile(join(models, 'm', '1', 'model.onnx')))
  compiler.close()
  const server = await createServerFolder(temporaryFolder(t, '/dev/shm'))
  const segment = await writeSegment({ imagePath, server, model: { name: 'm', version: '1' } })
  const measure: Compiled['measure'] = async ({
    hasRoom = false,
    signal = new AbortController().signal,
    timeoutMs = 60_000,
  } = {}) => {
    return await measureSegment(segment, { cache, hasRoom, signal, timeoutMs })
  }
  return { cacheDir, measure }
}

async function privateBytesOf(t: ExecutionContext, model: Uint8Array): Promise<number | null> {
  const { measure } = await compile(t, model)
  return await measure()
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
  'the measured private memory per worker: little for shared weights, all of what a kernel packs',
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

test.serial('nothing is measured where memory suffices for the upper bound', async (t) => {
  const { measure } = await compile(t, wideModel(32 * MIB))
  let isDone = false
  const measuring = measure({ hasRoom: true }).finally(() => {
    isDone = true
  })
  await untilSome('the answer', () => {
    t.deepEqual(probes(), [])
    return isDone || null
  })
  t.is(await measuring, null)
})

test.serial('a measurement is kept in the compile cache; a damaged record is measured again', async (t) => {
  const { measure, cacheDir } = await compile(t, wideModel(32 * MIB))
  const measured = await measure()
  t.not(measured, null)
  // No process can start any more.
  t.is(await measure({ signal: AbortSignal.abort() }), measured)
  const record = readdirSync(cacheDir).find((name) => name.endsWith('.memory.json')) as string
  writeFileSync(join(cacheDir, record), '{"privateBytes":-1}')
  t.is(await measure({ signal: AbortSignal.abort() }), null)
  t.not(await measure(), null)
})

for (const [what, signal] of [
  ['are killed', 'SIGKILL'],
  ['hang', 'SIGSTOP'],
] as const) {
  test.serial(`a model is served without a measurement whose processes ${what}`, async (t) => {
    const { measure } = await compile(t, wideModel(32 * MIB))
    let isDone = false
    const done = measure({ timeoutMs: 3000 }).finally(() => {
      isDone = true
    })
    let hit = 0
    await untilSome('it to end', () => {
      for (const pid of probes()) {
        process.kill(pid, signal)
        hit++
      }
      return isDone || null
    })
    t.true(hit > 0)
    t.deepEqual(probes(), [])
    t.is(await done, null)
  })
}

test.serial('a measurement that is stopped leaves no processes or files', async (t) => {
  const { cacheDir, measure } = await compile(t, wideModel(32 * MIB))
  const before = readdirSync(cacheDir)
  const stopping = new AbortController()
  const measuring = measure({ signal: stopping.signal })
  const found = await untilMeasured()
  stopping.abort()
  t.is(await measuring, null)
  t.deepEqual(
    probes().filter((pid) => found.includes(pid)),
    [],
  )
  t.deepEqual(readdirSync(cacheDir), before)
})
