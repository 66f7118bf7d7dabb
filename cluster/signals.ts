/**
 * Signals of the primary. The first SIGTERM or SIGINT drains, a second one ends immediately. SIGHUP
 * replaces the workers.
 */
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { isatty } from 'node:tty'

const STDIN = 0
/**
 * Under a package manager, one Ctrl-C arrives twice: from the terminal, which signals the whole
 * process group, and from the package manager, which forwards it. Copies within this time count as
 * one signal.
 */
export const DUPLICATE_SIGNAL_MS = 100
/**
 * npm forwards a signal from its event loop, which is late on a busy machine. It forwards at most
 * one copy.
 */
const NPM_COPY_MS = 2000

export interface TerminationHandlers {
  readonly onFirst: (signal: NodeJS.Signals) => void
  readonly onSecond: (signal: NodeJS.Signals) => void
}

/** Poll interval for the exit of the shell between npx and this process. */
const SHELL_POLL_MS = 200

function readProc(pid: number, file: 'comm' | 'cmdline' | 'stat'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1')
  } catch {
    return ''
  }
}

/**
 * npm sets its process title. Its environment variables prove nothing: every descendant has them.
 */
function isNpm(pid: number): boolean {
  return readProc(pid, 'comm').startsWith('npm')
}

/** Whether the parent is a shell that npx started for this command. */
function isRunByShellOfNpx(): boolean {
  const { npm_lifecycle_event: event, npm_lifecycle_script: script = '' } = process.env
  if (event !== 'npx' || script === '') return false
  const [, flag, command = ''] = readProc(process.ppid, 'cmdline').split('\0')
  const stat = readProc(process.ppid, 'stat')
  const grandparent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  return flag === '-c' && command.startsWith(script) && isNpm(grandparent)
}

/**
 * npx signals its shell, which exits without forwarding the signal. The exit of the shell therefore
 * counts as SIGTERM. (`npm start` has no such shell: its script uses `exec`.)
 */
function onShellExit(onExit: () => void): void {
  if (!isRunByShellOfNpx()) return
  const shell = process.ppid
  const poll = setInterval(() => {
    if (process.ppid === shell) return
    clearInterval(poll)
    onExit()
  }, SHELL_POLL_MS)
  poll.unref()
}

export function onTermination(handlers: TerminationHandlers): void {
  let first: { readonly signal: NodeJS.Signals; readonly atMs: number } | undefined
  let isCopyExpected = isNpm(process.ppid)
  const handle = (signal: NodeJS.Signals) => {
    const nowMs = performance.now()
    if (first === undefined) {
      first = { signal, atMs: nowMs }
      handlers.onFirst(signal)
      return
    }
    const sinceMs = nowMs - first.atMs
    const isCopy = isCopyExpected && signal === first.signal && sinceMs <= NPM_COPY_MS
    if (isCopy) isCopyExpected = false
    else if (sinceMs > DUPLICATE_SIGNAL_MS) handlers.onSecond(signal)
  }
  process.on('SIGTERM', handle)
  process.on('SIGINT', handle)
  onShellExit(() => {
    if (first === undefined) handle('SIGTERM')
  })
}

/**
 * `kill -HUP` restarts the workers. SIGHUP also arrives when the controlling terminal closes; the
 * server then drains, because no user could stop it any more.
 */
export function onHangUp(handlers: {
  readonly onRestart: () => void
  readonly onTerminalClosed: () => void
}): void {
  const hadTerminal = isatty(STDIN)
  process.on('SIGHUP', () => {
    if (hadTerminal && !isatty(STDIN)) handlers.onTerminalClosed()
    else handlers.onRestart()
  })
}

/** By convention, 128 plus the signal number. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}
