/** What the tests of the library attach to. */
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { addModel, wideModel, writeModel } from '../helpers/onnx-builder.js'
import { type RunningServer, type ServerUnderTest, startServer, temporaryFolder } from '../helpers/server.js'
import { inferOutputs } from '../helpers/v2-client.js'
import { until } from '../helpers/waiting.js'

export const WIDE_INPUTS = 1024
const WIDE_BYTES = 8_000_000
const RELEASED = 'released raw weights'

/** A row for the model 'wide'. */
export function wideRow(seed = 0): number[] {
  return Array.from({ length: WIDE_INPUTS }, (_, i) => Math.fround(Math.cos(i + seed)))
}

/** Serves a model of 8 MB. */
export async function serveWide(
  t: ExecutionContext,
  { segmentDir, args = [] }: { readonly segmentDir?: string; readonly args?: readonly string[] } = {},
): Promise<RunningServer & { readonly models: string }> {
  const models = writeModel(temporaryFolder(t), 'wide', wideModel(WIDE_BYTES))
  const choices = segmentDir === undefined ? {} : { segmentDir }
  return { models, ...(await startServer(t, { models, args: ['--workers', '1', ...args], ...choices })) }
}

export function releases(server: ServerUnderTest): number {
  return server.log.filter(({ msg }) => msg === RELEASED).length
}

/** Waits until the server has given its raw weights back so many times. */
export async function untilReleased(server: ServerUnderTest, times = 1): Promise<void> {
  await until(`raw weights to be released ${times} times`, () => releases(server) >= times)
}

function segmentStat(server: ServerUnderTest) {
  const [path = ''] = server.segments().filter((one) => one.endsWith('.segment'))
  return statSync(join(server.segmentDir, path))
}

/** Memory that the one segment takes, in bytes: less than its size while its raw weights are released. */
export function memoryOf(server: ServerUnderTest): number {
  return segmentStat(server).blocks * 512
}

export function sizeOf(server: ServerUnderTest): number {
  return segmentStat(server).size
}

/** What the server's worker answers. */
export async function served(url: string, row: readonly number[]): Promise<readonly number[]> {
  const bytes = new Uint8Array(Float32Array.from(row).buffer)
  const input = { name: 'x', datatype: 'FP32', shape: [1, row.length], bytes }
  const [output] = await inferOutputs({ url, model: 'wide', inputs: [input], encoding: 'binary' })
  return [...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)]
}

/** A server under explicit control whose model adds `constant`, and a way to replace it. */
export async function serveAdd(t: ExecutionContext, constant: readonly [number, number]) {
  const models = writeModel(temporaryFolder(t), 'add', addModel(constant))
  const running = await startServer(t, {
    models,
    args: ['--workers', '1', '--model-control', 'explicit', '--load-model', 'add'],
  })
  const control = async (what: 'load' | 'unload') => {
    const url = `${running.adminUrl}/v2/repository/models/add/${what}`
    const response = await fetch(url, { method: 'POST' })
    if (response.status !== 200) throw new Error(await response.text())
  }
  const replace = async (next: readonly [number, number]) => {
    const staging = join(models, '.staging')
    writeModel(staging, 'add', addModel(next))
    const target = join(models, 'add', '1')
    rmSync(target, { recursive: true, force: true })
    mkdirSync(join(models, 'add'), { recursive: true })
    renameSync(join(staging, 'add', '1'), target)
    await control('load')
  }
  return { ...running, models, replace, unload: () => control('unload') }
}
