import { mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { memoryCgroup, smallTmpfs, testWithLimits } from '../../helpers/limits.js'
import { wideModel, writeModel } from '../../helpers/onnx-builder.js'
import {
  type RunningServer,
  type StartOptions,
  spawnServer,
  stopCleanly,
  temporaryFolder,
} from '../../helpers/server.js'
import { inferOutputs, type WireTensor } from '../../helpers/v2-client.js'

const MIB = 1024 * 1024
const ROW: WireTensor = {
  name: 'x',
  datatype: 'FP32',
  shape: [1, 1024],
  bytes: new Uint8Array(new Float32Array(1024).fill(1).buffer),
}

type Serving = RunningServer & { readonly models: string }

async function serveWide(
  t: ExecutionContext,
  weightBytes: number,
  options: StartOptions,
  onCompiled: () => void = () => {},
): Promise<Serving> {
  const models = writeModel(temporaryFolder(t), 'wide', wideModel(weightBytes))
  const args = ['--workers', '2', '--model-control', 'explicit', '--load-model', 'wide']
  const server = spawnServer(t, { ...options, models, args })
  await server.logged(({ msg }) => msg === 'compiled, segment written')
  onCompiled()
  return { models, server, ...(await server.ready()) }
}

/** Replaces the model with one of another size and loads it. */
async function load({ models, adminUrl }: Serving, weightBytes: number): Promise<Response> {
  const target = join(models, 'wide', '1')
  rmSync(target, { recursive: true })
  mkdirSync(join(models, '.staging'), { recursive: true })
  writeModel(join(models, '.staging'), 'wide', wideModel(weightBytes))
  renameSync(join(models, '.staging', 'wide', '1'), target)
  return await fetch(`${adminUrl}/v2/repository/models/wide/load`, { method: 'POST' })
}

async function answerOf({ url }: Serving): Promise<readonly WireTensor[]> {
  return await inferOutputs({ url, model: 'wide', inputs: [ROW], encoding: 'binary' })
}

/** Programs of the server's child processes. */
function childrenOf({ server }: Serving): string[] {
  const { pid } = server.process
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
    .split(' ')
    .filter(Boolean)
    .map((child) => readFileSync(`/proc/${child}/cmdline`, 'latin1').replaceAll('\0', ' '))
}

interface Refusal {
  readonly code: string
  readonly reason: RegExp
}

/** Checks what operators see of a rejected swap, and that clients see nothing. */
async function refuses(
  t: ExecutionContext,
  serving: Serving,
  weightBytes: number,
  { code, reason }: Refusal,
): Promise<void> {
  const { server, adminUrl } = serving
  const before = await answerOf(serving)
  const refused = await load(serving, weightBytes)
  t.is(refused.headers.get('x-error-code'), code)
  t.deepEqual(await answerOf(serving), before, 'the current generation serves')
  const index = await fetch(`${adminUrl}/v2/repository/index`, { method: 'POST' })
  const [entry] = (await index.json()) as { state: string; reason: string }[]
  t.is(entry?.state, 'READY')
  t.regex(entry?.reason ?? '', reason)
  const line = await server.logged(
    ({ msg }) => msg === 'the model was not replaced: the current generation stays',
  )
  // The log has the full paths.
  t.regex(String(line.reason), reason)
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  t.regex(metrics, /^onecopy_model_changes_total\{outcome="failed"\} 1$/m)
  const files = server.segments().filter((path) => /segment|writing/.test(path))
  t.is(files.length, 1, `only the old segment exists: ${files}`)
  t.false(
    childrenOf(serving).some((program) => /compile-main|probe-main/.test(program)),
    'no process works on it',
  )
}

testWithLimits(
  'a swap that does not fit into shared memory keeps the current generation, and the error has the sizes',
  ['tmpfs'],
  async (t) => {
    const segmentDir = smallTmpfs(t, 'size=56m')
    const serving = await serveWide(t, 12 * MIB, { segmentDir })
    await refuses(t, serving, 24 * MIB, {
      code: 'SEGMENT_SPACE',
      reason: /needs 50\.\d MB in .*, [34]\d\.\d MB are free: raise/,
    })
    t.is((await load(serving, 12 * MIB)).status, 200, 'one that fits is loaded')
    await stopCleanly(t, serving.server)
  },
)

testWithLimits(
  'a swap that exceeds the memory limit keeps the current generation, and the error has the sizes',
  ['memory limit'],
  async (t) => {
    const cgroup = memoryCgroup(t, 280_000_000)
    // The limit is read at startup; the kernel does not enforce it on the workers.
    const serving = await serveWide(t, 16 * MIB, { cgroup: cgroup.procs }, () => cgroup.limit(4e9))
    // The lower bound exceeds the limit, so nothing is measured.
    await refuses(t, serving, 48 * MIB, {
      code: 'MEMORY_LIMIT',
      reason:
        /\(segments 134\.\d MB, 2 workers of .*this model 100\.\d MB and .* in each worker, at least, in addition to 33\.\d MB of other segments\), but the control group allows only 280\.0 MB/,
    })
    t.is((await load(serving, 16 * MIB)).status, 200, 'one that fits is loaded')
    await stopCleanly(t, serving.server)
  },
)
