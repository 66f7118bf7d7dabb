/** Signals of the primary: the first to terminate asks for an orderly end, a second one ends at once; SIGHUP restarts. */

import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { isatty } from 'node:tty'

const STDIN = 0
/**
 * One Ctrl-C under a package manager reaches the process twice: from the terminal, which signals the whole process
 * group, and from the package manager, which forwards what it gets. Copies that arrive within this time are one wish.
 */
export const SAME_WISH_MS = 100
/** npm forwards when its event loop gets to it: on a busy machine that is later, and it is one copy at the most. */
const NPM_COPY_MS = 2000

export interface TerminationHandlers {
  readonly onFirst: (signal: NodeJS.Signals) => void
  readonly onSecond: (signal: NodeJS.Signals) => void
}

/** How soon the end of a shell is noticed that stands between npx and this process. */
const SHELL_LOOK_MS = 200

function readProc(pid: number, file: 'comm' | 'cmdline' | 'stat'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1')
  } catch {
    return ''
  }
}

/** npm names its process after the command. The environment is no proof: every descendant has that. */
function isNpm(pid: number): boolean {
  return readProc(pid, 'comm').startsWith('npm')
}

/** Whether the parent is the shell that npx has started for this command alone. */
function isRunByShellOfNpx(): boolean {
  const { npm_lifecycle_event: event, npm_lifecycle_script: script = '' } = process.env
  if (event !== 'npx' || script === '') return false
  const [, flag, command = ''] = readProc(process.ppid, 'cmdline').split('\0')
  const stat = readProc(process.ppid, 'stat')
  const grandparent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  return flag === '-c' && command.startsWith(script) && isNpm(grandparent)
}

/**
 * npx signals its shell, which ends and forwards nothing: the end of that shell is the end that was asked for.
 * (`npm start` has no such shell: its script says `exec`.)
 */
function onShellGone(onGone: () => void): void {
  if (!isRunByShellOfNpx()) return
  const shell = process.ppid
  const look = setInterval(() => {
    if (process.ppid === shell) return
    clearInterval(look)
    onGone()
  }, SHELL_LOOK_MS)
  look.unref()
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
    else if (sinceMs > SAME_WISH_MS) handlers.onSecond(signal)
  }
  process.on('SIGTERM', handle)
  process.on('SIGINT', handle)
  onShellGone(() => {
    if (first === undefined) handle('SIGTERM')
  })
}

/**
 * `kill -HUP` asks for fresh workers. The same signal comes when the terminal that the server was started in is
 * closed; nobody could stop it there any more, so it ends.
 */
export function onHangUp(handlers: {
  readonly onAsked: () => void
  readonly onTerminalGone: () => void
}): void {
  const hadTerminal = isatty(STDIN)
  process.on('SIGHUP', () => {
    if (hadTerminal && !isatty(STDIN)) handlers.onTerminalGone()
    else handlers.onAsked()
  })
}

/** By convention 128 + the number of the signal. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}
