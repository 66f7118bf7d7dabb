/**
 * Open-loop load at four times the maximum. The server must keep its throughput, bound the latency of
 * accepted requests by its queue limit, and reject the rest immediately.
 */
import { closedLoop } from '../harness/closed-loop.js'
import { type OpenLoopResult, openLoop } from '../harness/open-loop.js'
import { createProgress } from '../harness/progress.js'
import type { Check } from '../harness/report.js'
import { inferRequests } from '../harness/requests.js'
import { startOnecopy } from '../harness/servers.js'
import { formatNumber, formatSpread, quantile, spread } from '../harness/statistics.js'
import { spreadChart } from '../harness/svg.js'
import { benchModel, type Row } from './row.js'

const MODEL = 'convnet-16x64'
const REQUEST_COUNT = 16
const OVERLOAD = 4
/** The default of the server, stated because the bar depends on it. */
const MAX_QUEUED_REQUESTS = 32
const SATURATING_CONNECTIONS = 16
const GOODPUT_BAR = 0.9
const REFUSAL_BAR_MS = 50
/** Share at the start of the run that is ignored, while the queues fill. */
const RAMP_SHARE = 0.3
const ROUNDS = 3
const WARM_UP_SECONDS = 2

interface OverloadRound {
  readonly maximumPerSecond: number
  readonly offeredPerSecond: number
  readonly goodputPerSecond: number
  readonly goodputRatio: number
  readonly acceptedP99Ms: number
  /** Time to drain a full queue, at the lowest goodput that the bar allows. */
  readonly queueDrainMs: number
  readonly refusedP99Ms: number
  readonly answersByStatus: Record<string, number>
  readonly sendLagP99Ms: number
}

function summarize(
  result: OpenLoopResult,
  options: { maximumPerSecond: number; workers: number },
): OverloadRound {
  const { maximumPerSecond, workers } = options
  const { answers, elapsedMs, sendLagsMs } = result
  const fromMs = elapsedMs * RAMP_SHARE
  const answersByStatus: Record<string, number> = {}
  for (const { status } of answers) answersByStatus[status] = (answersByStatus[status] ?? 0) + 1
  const latencies = (status: number) =>
    answers
      .filter((answer) => answer.status === status && answer.dueMs >= fromMs)
      .map(({ latencyMs }) => latencyMs)
  const done = answers.filter(
    ({ status, endedMs }) => status === 200 && endedMs >= fromMs && endedMs < elapsedMs,
  )
  const goodputPerSecond = (done.length * 1000) / (elapsedMs - fromMs)
  // The queue, plus the request that runs.
  const heldRequests = (MAX_QUEUED_REQUESTS + 1) * workers
  return {
    maximumPerSecond,
    offeredPerSecond: (answers.length * 1000) / elapsedMs,
    goodputPerSecond,
    goodputRatio: goodputPerSecond / maximumPerSecond,
    acceptedP99Ms: quantile(latencies(200), 0.99),
    queueDrainMs: (heldRequests * 1000) / (maximumPerSecond * GOODPUT_BAR),
    refusedP99Ms: quantile(latencies(503), 0.99),
    answersByStatus,
    sendLagP99Ms: quantile(sendLagsMs, 0.99),
  }
}

function checksOf(rounds: readonly OverloadRound[]): Check[] {
  const of = (pick: (round: OverloadRound) => number) => spread(rounds.map(pick))
  const goodput = of((round) => round.goodputRatio)
  const wait = of((round) => round.acceptedP99Ms / round.queueDrainMs)
  const refused = of((round) => round.refusedP99Ms)
  const others = rounds.flatMap(({ answersByStatus }) =>
    Object.entries(answersByStatus).filter(([status]) => status !== '200' && status !== '503'),
  )
  return [
    {
      claim: 'goodput under overload / maximum',
      got: `${formatSpread(goodput)}x`,
      bar: `at least ${GOODPUT_BAR}x`,
      isMet: goodput.median >= GOODPUT_BAR,
    },
    {
      claim: `accepted p99 / drain time of a queue of ${MAX_QUEUED_REQUESTS}`,
      got: `${formatSpread(wait)}x`,
      bar: 'at most 1x',
      isMet: wait.median <= 1,
    },
    {
      claim: 'p99 until a 503',
      got: `${formatSpread(refused)} ms`,
      bar: `at most ${REFUSAL_BAR_MS} ms`,
      isMet: refused.median <= REFUSAL_BAR_MS,
    },
    {
      claim: 'every response has status 200 or 503',
      got: others.length === 0 ? 'yes' : others.map(([status, count]) => `${count} of ${status}`).join(', '),
      bar: 'no other status',
      isMet: others.length === 0,
    },
  ]
}

export const overload: Row = {
  name: 'overload',
  title: `${MODEL}, binary, open loop at ${OVERLOAD} times the maximum`,
  run: async ({ name, title, stage, options }) => {
    const { workers, seconds } = options
    const model = await benchModel(MODEL)
    const requests = inferRequests(model.recipe, { encoding: 'binary', count: REQUEST_COUNT })
    const flags = ['--max-queue', String(MAX_QUEUED_REQUESTS)]
    const { port, child } = await startOnecopy({ stage, model, workers, flags })
    using progress = createProgress(name, ROUNDS * 2 + 1)
    const saturate = (forSeconds: number) =>
      closedLoop({ port, requests, connections: SATURATING_CONNECTIONS, seconds: forSeconds })
    const rounds: OverloadRound[] = []
    progress.step('warm-up')
    await saturate(Math.min(WARM_UP_SECONDS, seconds))
    for (let round = 1; round <= ROUNDS; round++) {
      progress.step(`maximum: round ${round}`)
      const { requestsPerSecond: maximumPerSecond } = await saturate(seconds)
      progress.step(`overload: round ${round}`)
      const result = await openLoop({ port, requests, ratePerSecond: maximumPerSecond * OVERLOAD, seconds })
      child.assertAlive()
      rounds.push(summarize(result, { maximumPerSecond, workers }))
    }
    return {
      name,
      title,
      table: {
        head: [
          'round',
          'maximum/s',
          'offered/s',
          'goodput/s',
          'accepted p99 ms',
          'queue drain ms',
          '503 p99 ms',
          'responses',
          'send lag p99 ms',
        ],
        rows: rounds.map((round, index) => [
          String(index + 1),
          formatNumber(round.maximumPerSecond),
          formatNumber(round.offeredPerSecond),
          formatNumber(round.goodputPerSecond),
          formatNumber(round.acceptedP99Ms),
          formatNumber(round.queueDrainMs),
          formatNumber(round.refusedP99Ms),
          Object.entries(round.answersByStatus)
            .map(([status, count]) => `${status}: ${count}`)
            .join(', '),
          formatNumber(round.sendLagP99Ms),
        ]),
      },
      checks: checksOf(rounds),
      notes: [
        'Latencies count from when a request was due; status 0 is a connection error, -1 a request not sent.',
      ],
      charts: [
        spreadChart({ title, unit: 'requests per second' }, [
          ['maximum', rounds.map((round) => round.maximumPerSecond)],
          ['goodput under overload', rounds.map((round) => round.goodputPerSecond)],
        ]),
      ],
      setting: { ...options, model, overload: OVERLOAD, maxQueuedRequests: MAX_QUEUED_REQUESTS },
      raw: rounds,
    }
  },
}
