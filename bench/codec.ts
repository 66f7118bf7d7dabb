/**
 * Time to decode tensors from a request body and to encode a response body, without a server. Compares the
 * codec of onecopy, which validates everything against the model, with that of the other Node variants, which
 * validates nothing.
 */
import { decodeInferRequest, parseHeaderLength } from '../src/protocol/v2/request.js'
import { encodeInferResponse } from '../src/protocol/v2/response.js'
import { defineBench } from './harness/bench.js'
import { leadCell } from './harness/lead.js'
import { countOption, positiveOption, risingOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { buildRequest, ENCODINGS, type Encoding, type InferRequest } from './harness/requests.js'
import { orderOf } from './harness/rounds.js'
import { formatNumber, formatSpread, quantile, spread } from './harness/statistics.js'
import { spreadChart } from './harness/svg.js'
import { createRandom } from './models/random.js'
import { decodeRequest, encodeAnswer } from './variants/v2-codec.js'

const LIMITS = { jsonDepth: 32, maxTensors: 16 }
const MODEL = {
  name: 'codec',
  version: '1',
  inputs: [{ name: 'input', datatype: 'FP32', shape: [-1, -1] }],
  outputs: [{ name: 'output', datatype: 'FP32', shape: [-1, -1] }],
} as const
/** Runs at least this often, even if the time is over. */
const MIN_RUNS = 3

interface CodecOptions {
  readonly elements: readonly number[]
  readonly seconds: number
  readonly rounds: number
}

type Work = 'decode' | 'encode'

interface Arm {
  readonly name: 'onecopy' | 'plain'
  readonly encoding: Encoding
  readonly work: Work
  readonly run: () => void
  /** Milliseconds per operation, the median of each round. */
  readonly samples: number[]
}

function bodyOf({ body }: InferRequest): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(body)
}

function armsFor(elements: number): Arm[] {
  const random = createRandom(`codec/${elements}`)
  const data = Float32Array.from({ length: elements }, () => random() * 2 - 1)
  const shape = [1, elements]
  const tensor = { name: 'output', datatype: 'FP32', shape, data } as const
  return ENCODINGS.flatMap((encoding): Arm[] => {
    const inputs = [{ ...tensor, name: 'input' }]
    const request = buildRequest({ modelName: MODEL.name, inputs, outputName: 'output', encoding })
    const headerLength = request.headers['Inference-Header-Content-Length']
    const body = bodyOf(request)
    const buffer = Buffer.from(body.buffer)
    const jsonBytes = parseHeaderLength(headerLength)
    const isBinary = encoding === 'binary'
    const plain = { id: undefined, feeds: {}, outputNames: undefined, wantsBinary: isBinary }
    const answer = { modelName: MODEL.name, version: '1', request: plain, results: { output: tensor } }
    const runs: Record<Arm['name'], Record<Work, () => void>> = {
      onecopy: {
        decode: () => decodeInferRequest({ body, jsonBytes, model: MODEL, limits: LIMITS }),
        encode: () => {
          const { chunks } = encodeInferResponse({ model: MODEL, outputs: [tensor], binary: [isBinary] })
          // The socket would convert text to bytes; the other codec has already done it.
          for (const chunk of chunks) if (typeof chunk === 'string') Buffer.from(chunk)
        },
      },
      plain: {
        decode: () => decodeRequest(buffer, headerLength ?? ''),
        encode: () => encodeAnswer(answer),
      },
    }
    return (['decode', 'encode'] as const).flatMap((work) =>
      (['onecopy', 'plain'] as const).map((name) => ({
        ...{ name, encoding, work, run: runs[name][work], samples: [] },
      })),
    )
  })
}

/** Median duration of as many runs as fit into the time. */
function time(run: () => void, seconds: number): number {
  const taken: number[] = []
  const endMs = performance.now() + seconds * 1000
  for (let startedMs = performance.now(); startedMs < endMs || taken.length < MIN_RUNS; ) {
    run()
    const endedMs = performance.now()
    taken.push(endedMs - startedMs)
    startedMs = endedMs
  }
  return quantile(taken, 0.5)
}

interface Measured {
  readonly elements: number
  readonly arms: readonly Arm[]
}

function rowsOf({ elements, arms }: Measured): string[][] {
  return arms.map((arm) => {
    const ours = arms.find((one) => {
      return one.name === 'onecopy' && one.encoding === arm.encoding && one.work === arm.work
    })
    const { median } = spread(arm.samples)
    return [
      `${elements} FP32`,
      `${arm.work} ${arm.encoding}`,
      arm.name,
      formatSpread(spread(arm.samples)),
      formatNumber((elements * 4) / 1e6 / (median / 1000)),
      arm.name === 'onecopy' || ours === undefined
        ? '-'
        : leadCell({ onecopy: ours.samples, other: arm.samples, better: 'lower' }),
    ]
  })
}

async function codecBench({ elements: sizes, seconds, rounds }: CodecOptions): Promise<BenchReport> {
  const all = sizes.map((elements) => ({ elements, arms: armsFor(elements) }))
  using progress = createProgress('codec', sizes.length * (rounds + 1))
  for (const { elements, arms } of all) {
    progress.step(`${elements} elements: warm-up`)
    for (const { run } of arms) time(run, seconds)
    for (let round = 0; round < rounds; round++) {
      progress.step(`${elements} elements: round ${round + 1}`)
      for (const { run, samples } of orderOf(arms, round)) {
        samples.push(time(run, seconds))
      }
      // Lets the event loop handle signals and the progress bar.
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const last = all.at(-1)
  return {
    name: 'codec',
    title: 'request bodies to tensors, tensors to response bodies, in one process without a server',
    table: {
      head: [
        'tensor',
        'work',
        'codec',
        'ms per operation, median (min-max)',
        'MB/s of tensor',
        'onecopy compared',
      ],
      rows: all.flatMap(rowsOf),
    },
    checks: [],
    notes: [
      'plain: JSON.parse and Float32Array.from, one copy of a binary tensor, no checks',
      'onecopy validates names, types, shapes, lengths and nesting against the model and its limits in the same pass',
    ],
    charts: [
      spreadChart(
        { title: `codec, ${last?.elements} FP32 elements`, unit: 'milliseconds per operation' },
        (last?.arms ?? []).map(({ work, encoding, name, samples }) => [
          `${work} ${encoding}, ${name}`,
          samples,
        ]),
      ),
    ],
    setting: { elements: sizes, seconds, rounds },
    raw: all.map(({ elements, arms }) => ({ elements, arms: arms.map(({ run: _, ...arm }) => arm) })),
  }
}

export const codec = defineBench({
  name: 'codec',
  summary: 'Bodies to tensors and tensors to bodies, JSON and binary, in one process without a server.',
  options: {
    elements: risingOption({ help: 'Elements of the tensor', default: '1000,100000,1000000' }),
    seconds: positiveOption({ help: 'Duration of one measurement', default: '0.5', quick: '0.1' }),
    rounds: countOption({ help: 'Measurements of each, alternating', default: '10', quick: '4' }),
  },
  reports: (options) => [() => codecBench(options)],
})
