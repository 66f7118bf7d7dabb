/** Checks of a server whose processes are killed under load. */
import type { Check } from '../harness/report.js'
import { formatNumber, quantile } from '../harness/statistics.js'
import type { LostRequest } from './clients.js'
import { losesRequests } from './faults.js'
import type { ChaosResult } from './run.js'

const RECOVERY_BAR_MS = 1000

function none(claim: string, found: readonly string[]): Check {
  const got = found.length === 0 ? '0' : `${found.length}, such as: ${found.slice(0, 3).join('; ')}`
  return { claim, bar: '0', got, isMet: found.length === 0 }
}

function describe({ reason, ownerPid, sentAtMs, lostAtMs }: LostRequest): string {
  const where = ownerPid === null ? 'no worker' : `worker ${ownerPid}`
  return `${reason} at ${where} after ${Math.round(lostAtMs - sentAtMs)} ms`
}

/** Time until all workers are ready again, after each worker that was killed without a drain. */
export function recoveriesMs({ faults }: ChaosResult): number[] {
  return faults.flatMap(({ fault, recoveryMs }) =>
    losesRequests(fault) && recoveryMs !== null ? [recoveryMs] : [],
  )
}

export function chaosChecks(result: ChaosResult): Check[] {
  const { tally, faults, watch, strayEnds, fatalLines, exit, filesLeft, processesLeft } = result
  return [
    none('wrong answers', tally.wrong),
    none('requests lost on connections of workers that were not killed', tally.unexplained.map(describe)),
    none('workers that ended unexpectedly', strayEnds),
    none('fatal log lines', fatalLines),
    none(
      'faults without recovery of all workers',
      faults.filter(({ recoveryMs }) => recoveryMs === null).map(({ fault }) => fault),
    ),
    none('scrapes that failed, lost a count, or counted less than the clients', watch.problems),
    none('files left in the segment folder', filesLeft),
    { claim: 'processes left', bar: '0', got: String(processesLeft), isMet: processesLeft === 0 },
    { claim: 'exit of the primary', bar: 'code 0', got: exit, isMet: exit === 'code 0' },
    {
      claim: 'faults, responses and scrapes took place',
      bar: 'each at least once',
      got: `${faults.length} faults, ${tally.answered} responses, ${watch.scrapes} scrapes`,
      isMet: faults.length > 0 && tally.answered > 0 && watch.scrapes > 0,
    },
  ]
}

export function recoveryCheck(result: ChaosResult): Check {
  const medianMs = quantile(recoveriesMs(result), 0.5)
  return {
    claim: 'time until all workers are ready after a kill, median',
    bar: `at most ${RECOVERY_BAR_MS} ms`,
    got: `${formatNumber(medianMs)} ms`,
    isMet: medianMs <= RECOVERY_BAR_MS,
  }
}
