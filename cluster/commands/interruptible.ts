/** Runs a command so that an interrupt cleans up, and reports failures like `serve`. */
import { OnecopyError } from '../../src/errors.js'
import { EXIT } from '../exit-codes.js'
import { exitCodeOf, onTermination } from '../signals.js'

/**
 * Runs `work`, which stops on its AbortSignal and cleans up. Resolves with the exit code. A second signal has
 * no effect, because only cleanup remains.
 */
export async function untilInterrupted(
  work: (signal: AbortSignal) => Promise<void>,
  onFailure: (error: OnecopyError) => void,
): Promise<number> {
  const stop = new AbortController()
  const onSignal = (name: NodeJS.Signals) =>
    stop.abort(new OnecopyError('SHUTTING_DOWN', `stopped by ${name}`))
  let stoppedBy: NodeJS.Signals | undefined
  const onFirst = (name: NodeJS.Signals) => {
    stoppedBy ??= name
    onSignal(name)
  }
  onTermination({ onFirst, onSecond: () => {} })
  process.on('SIGHUP', onFirst)
  try {
    await work(stop.signal)
    return 0
  } catch (thrown) {
    if (stoppedBy !== undefined) return exitCodeOf(stoppedBy)
    if (!(thrown instanceof OnecopyError)) throw thrown
    process.stderr.write(`onecopy: ${thrown.code}: ${thrown.message}\n`)
    onFailure(thrown)
    return EXIT.failed
  }
}
