/** Runs `onecopy serve`: the primary, with the signals that stop it or restart its workers. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Config } from '../src/config/config.js'
import { EXIT } from './exit-codes.js'
import { Primary } from './primary.js'
import { DUPLICATE_SIGNAL_MS, exitCodeOf, onHangUp, onTermination } from './signals.js'

/** Resolves when the first termination signal arrives. */
function stoppedBySignal(primary: Primary): Promise<void> {
  return new Promise((resolve) => {
    onTermination({
      onFirst: (signal) => {
        primary.log.info({ signal }, 'stopping')
        // Also ends a start that waits for its workers.
        primary.beginToStop()
        resolve()
      },
      onSecond: (signal) => {
        primary.log.warn({ signal }, 'second signal: ending immediately')
        primary.endImmediately()
        process.exit(exitCodeOf(signal))
      },
    })
  })
}

/** Runs `onecopy serve` until a signal; resolves with the exit code. */
export async function runPrimary(config: Config, version: string): Promise<number> {
  const primary = new Primary(config, version)
  const stopped = stoppedBySignal(primary)
  onHangUp({
    onRestart: () => {
      primary.reloadSecrets()
      const reason = primary.beginRestart('SIGHUP')
      if (reason !== null) primary.log.warn({ reason }, 'SIGHUP: the workers cannot be replaced')
    },
    onTerminalClosed: () => process.kill(process.pid, 'SIGTERM'),
  })
  let exitCode = 0
  try {
    await primary.start()
    await stopped
  } catch (thrown) {
    // Ctrl-C reaches every process of the terminal: a booting worker can end before the primary
    // reacts.
    await Promise.race([stopped, delay(DUPLICATE_SIGNAL_MS)])
    exitCode = primary.isStopping ? 0 : EXIT.failed
    if (exitCode !== 0) primary.reportFailedStart(thrown)
  }
  return Math.max(exitCode, await primary.stop())
}
