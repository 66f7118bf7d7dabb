/**
 * Compares gRPC with the binary encoding of REST on the same workers, and measures the added
 * memory.
 */
import { defineBench } from './harness/bench.js'
import { failuresOf, noFailures, valuesOf } from './harness/compare.js'
import { privateBytes, settle } from './harness/footprint.js'
import { type Caller, type CpuSample, callerArm, grpcCaller, restCaller } from './harness/node-clients.js'
import { countOption, positiveOption, risingOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { alternate, type MeasuredArm, stepsOf } from './harness/rounds.js'
import { type RunningServer, startOnecopy } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatNumber, formatSpread, quantile, ratios, spread } from './harness/statistics.js'
import { findSubject, modelsOption, requestsTo, type Subject } from './models/subject.js'

/** Different bodies, few enough for large tensors to fit into memory. */
const REQUEST_COUNT = 4
const GRPC_FLAGS = ['--grpc-port', '0']

interface GrpcOptions {
  readonly inFlight: readonly number[]
  readonly seconds: number
  readonly rounds: number
  readonly workers: number
}

async function grpcPortOf({ child }: RunningServer): Promise<number> {
  const { grpcPort } = await child.ready
  if (grpcPort === undefined) throw new Error(`expected ${child.name} to report its gRPC port`)
  return grpcPort
}

/** @throws Error unless both give the same bytes for every request. */
async function verifyEqual(callers: readonly Caller[]): Promise<void> {
  for (let index = 0; index < REQUEST_COUNT; index++) {
    const [first = new Uint8Array(), ...others] = await Promise.all(callers.map(({ call }) => call(index)))
    if (first.length === 0 || others.some((other) => Buffer.compare(first, other) !== 0))
      throw new Error(`request ${index}: expected the same output over REST and gRPC`)
  }
}

function cpuOf({ samples }: MeasuredArm): number[] {
  return samples.map((sample) => (sample as CpuSample).workerCpuMs)
}

function rowsOf(inFlight: number, measured: readonly MeasuredArm[]): string[][] {
  const [rest] = measured
  return measured.map((arm) => {
    const ratioOf = (values: (one: MeasuredArm) => number[]) =>
      rest === undefined || arm === rest ? '-' : `${formatSpread(ratios(values(arm), values(rest)))}x`
    return [
      String(inFlight),
      arm.name,
      formatSpread(spread(valuesOf(arm, 'requestsPerSecond'))),
      formatNumber(quantile(valuesOf(arm, 'p50Ms'), 0.5)),
      formatSpread(spread(valuesOf(arm, 'p99Ms'))),
      formatNumber(quantile(cpuOf(arm), 0.5)),
      String(failuresOf(arm.samples)),
      ratioOf((one) => valuesOf(one, 'requestsPerSecond')),
      ratioOf((one) => valuesOf(one, 'p99Ms')),
      ratioOf(cpuOf),
    ]
  })
}

function tensorBytes(model: Subject): number {
  return (model.inputs(1)[0] ?? []).reduce((sum, { data }) => sum + data.byteLength, 0)
}

async function speedBench(modelName: string, options: GrpcOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const { workers, rounds } = options
  const model = await findSubject(modelName)
  const server = await startOnecopy({ stage, model, workers, flags: GRPC_FLAGS })
  const grpcPort = await grpcPortOf(server)
  const requests = requestsTo(model, { encoding: 'binary', count: REQUEST_COUNT })
  const inputs = model.inputs(REQUEST_COUNT)
  using progress = createProgress(`grpc ${model.name}`, stepsOf(2, rounds) * options.inFlight.length)
  const rows: string[][] = []
  const raw: { readonly inFlight: number; readonly arms: readonly MeasuredArm[] }[] = []
  for (const inFlight of options.inFlight) {
    const callers = [
      restCaller(server.port, requests),
      grpcCaller({ port: grpcPort, modelName: model.name, inputs, inFlight }),
    ]
    await verifyEqual(callers)
    const arms = callers.map((caller) => callerArm(caller, { server, inFlight }))
    const measured = await alternate(arms, { ...options, progress })
    for (const caller of callers) caller.close()
    raw.push({ inFlight, arms: measured })
    rows.push(...rowsOf(inFlight, measured))
  }
  return {
    name: `grpc-${model.name}`,
    title: `${model.name}, tensors of ${formatMb(tensorBytes(model))} MB each way, ${workers} workers`,
    table: {
      head: [
        ...[
          'in flight',
          'protocol',
          'req/s, median (min-max)',
          'p50 ms',
          'p99 ms',
          'worker CPU ms',
          'failures',
        ],
        ...['gRPC / REST, req/s', 'p99', 'worker CPU'],
      ],
      rows,
    },
    checks: [noFailures(raw.flatMap(({ arms }) => arms))],
    notes: [
      'one client process in Node.js with node:http, or grpc-js with up to 8 channels; req/s and p99 include its cost',
      'worker CPU: CPU time of all workers per request',
    ],
    charts: [],
    setting: { ...options, model },
    raw,
  }
}

const MEMORY_CALLS = 2000
const MEMORY_IN_FLIGHT = 32

async function memoryBench({ workers }: GrpcOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const model = await findSubject('tiny-16')
  const without = await startOnecopy({ stage, model, workers, name: 'without gRPC' })
  const withIt = await startOnecopy({ stage, model, workers, name: 'with gRPC', flags: GRPC_FLAGS })
  const callers = [
    restCaller(without.port, requestsTo(model, { encoding: 'binary', count: REQUEST_COUNT })),
    grpcCaller({
      ...{ port: await grpcPortOf(withIt), modelName: model.name },
      ...{ inputs: model.inputs(REQUEST_COUNT), inFlight: MEMORY_IN_FLIGHT },
    }),
  ]
  const measured: { readonly state: string; readonly name: string; readonly privateMb: readonly number[] }[] =
    []
  const measure = async (state: string) => {
    await Promise.all([settle(without), settle(withIt)])
    for (const { name, workerPids } of [without, withIt]) {
      const privateMb: number[] = []
      for (const pid of workerPids) privateMb.push((await privateBytes(pid)) / 1e6)
      measured.push({ state, name, privateMb })
    }
  }
  await measure('idle')
  for (const { call } of callers)
    for (let first = 0; first < MEMORY_CALLS; first += MEMORY_IN_FLIGHT)
      await Promise.all(Array.from({ length: MEMORY_IN_FLIGHT }, (_, i) => call(first + i)))
  await measure(`after ${MEMORY_CALLS} requests`)
  for (const { close } of callers) close()
  return {
    name: 'grpc-memory',
    title: `private memory of a worker with and without gRPC, ${workers} workers`,
    table: {
      head: ['', 'server', 'private MB per worker, median (min-max)', 'added by gRPC, MB'],
      rows: measured.map(({ state, name, privateMb }, i) => {
        const base = i % 2 === 0 ? undefined : measured[i - 1]
        const more = quantile(privateMb, 0.5) - quantile(base?.privateMb ?? [], 0.5)
        return [state, name, formatSpread(spread(privateMb)), base === undefined ? '-' : formatNumber(more)]
      }),
    },
    checks: [],
    notes: ['requests use gRPC if it is enabled, else REST with binary tensors'],
    charts: [],
    setting: { workers, calls: MEMORY_CALLS, model },
    raw: measured,
  }
}

export const grpc = defineBench({
  name: 'grpc',
  summary:
    'gRPC compared with the binary encoding of REST, by requests in flight, and the memory that it adds.',
  options: {
    models: modelsOption({ default: 'tiny-2,tiny-1048576' }),
    inFlight: risingOption({ help: 'Requests in flight', default: '1,8,32,128', quick: '1,8' }),
    seconds: positiveOption({ help: 'Duration of one measurement', default: '4', quick: '1' }),
    rounds: countOption({ help: 'Measurements of each protocol, alternating', default: '4', quick: '1' }),
    workers: countOption({ help: 'Workers', default: '2' }),
  },
  failsWhen: 'a request failed',
  reports: ({ models, ...options }) => [
    ...models.map((model) => () => speedBench(model, options)),
    () => memoryBench(options),
  ],
})
